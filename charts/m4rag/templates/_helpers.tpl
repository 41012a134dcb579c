{{/* Labels that reach pods: the same in every version of the chart, so that an upgrade restarts only what changed. */}}
{{- define "m4rag.podLabels" -}}
app.kubernetes.io/name: m4rag
app.kubernetes.io/part-of: m4rag
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of everything else. Takes the root context. */}}
{{- define "m4rag.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{ include "m4rag.podLabels" . }}
{{- end }}

{{/* What selects the pods of a component. Takes (list $ "component"). */}}
{{- define "m4rag.selector" -}}
app.kubernetes.io/name: m4rag
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* An image, refused where it is not pinned. Takes (list $ "endpoint"), the name under .Values.images. */}}
{{- define "m4rag.image" -}}
{{- $images := (index . 0).Values.images }}
{{- $name := index . 1 }}
{{- $image := get $images $name }}
{{- if not $image }}{{ fail (printf "images.%s names no image: set it to registry/name@sha256:..." $name) }}{{ end }}
{{- if not (or $images.allowTag (contains "@sha256:" $image)) }}
{{- fail (printf "images.%s: %s has no digest, so that what runs can change unseen: pin it with @sha256:..., or set images.allowTag for development" $name $image) }}
{{- end }}
{{- $image }}
{{- end }}

{{/* The pull secrets of a pod, where there are any. Takes the root context. */}}
{{- define "m4rag.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Pod Security "restricted", for the pod and for a container. */}}
{{- define "m4rag.podSecurity" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}
{{- define "m4rag.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The address of the first model of a task. Takes (list $ "generate" "connections.vlmUrl"). */}}
{{- define "m4rag.modelUrl" -}}
{{- $root := index . 0 }}
{{- $task := index . 1 }}
{{- $url := "" }}
{{- range include "m4rag.models" $root | fromJsonArray }}
{{- if and (not $url) (eq .catalog.task $task) }}
{{- if eq .kind "LLMInferenceService" }}
{{- fail (printf "%s is empty, and models.%s is an LLMInferenceService, whose address is the Gateway's: set it (kubectl get llmisvc %s)" (index $ 2) .name .name) }}
{{- end }}
{{- $url = printf "http://%s/v1" .deployment }}
{{- end }}
{{- end }}
{{- $url }}
{{- end }}

{{/* Addresses, as the pipelines' steps and the endpoint read them. One that is empty is left out: steps take a variable
     that is there for an address. */}}
{{- define "m4rag.connections" -}}
{{- $vlm := .Values.connections.vlmUrl }}
{{- if not $vlm }}{{ $vlm = include "m4rag.modelUrl" (list . "generate" "connections.vlmUrl") }}{{ end }}
{{- $embedder := .Values.connections.embeddingUrl }}
{{- if not $embedder }}{{ $embedder = include "m4rag.modelUrl" (list . "embed" "connections.embeddingUrl") }}{{ end }}
{{- if and .Values.rag.enabled (not $vlm) }}
{{- fail "rag.enabled, and nothing that answers: name a model under `models`, or an address in connections.vlmUrl" }}
{{- end }}
MILVUS_URI: {{ .Values.connections.milvusUri | quote }}
MLFLOW_TRACKING_URI: {{ .Values.connections.mlflowTrackingUri | quote }}
{{- with $vlm }}
M4RAG_VLM_URL: {{ . | quote }}
{{- end }}
{{- with $embedder }}
M4RAG_EMBEDDING_URL: {{ . | quote }}
{{- end }}
{{- end }}

{{/* The policy's ConfigMap, where there is one. */}}
{{- define "m4rag.policyConfigMap" -}}
{{- if and .Values.rag.policy .Values.rag.policyConfigMap }}{{ fail "rag.policy and rag.policyConfigMap are both set: take one" }}{{ end }}
{{- if .Values.rag.policyConfigMap }}{{ .Values.rag.policyConfigMap }}{{ else if .Values.rag.policy }}m4rag-policy{{ end }}
{{- end }}
