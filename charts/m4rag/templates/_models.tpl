{{/* What m4rag.deploy.vlm_service renders, in Helm's language: a test holds the two against each other for every model.
     All templates here take an entry of m4rag.models, unless they say otherwise, and `image` and `allowTag` in it. */}}

{{/* The models to serve, each on top of modelDefaults, with its entries of files/models.yaml (`catalog`, `common`) and
     files/hardware.yaml (`profile`). Takes the root context; gives JSON. */}}
{{- define "m4rag.models" -}}
{{- $catalog := .Files.Get "files/models.yaml" | fromYaml }}
{{- $profiles := (.Files.Get "files/hardware.yaml" | fromYaml).profiles }}
{{- $models := list }}
{{- $names := list }}
{{- range .Values.models }}
{{- $model := mergeOverwrite (deepCopy $.Values.modelDefaults) . }}
{{- $where := printf "models: %s" $model.name }}
{{- if has $model.name $names }}{{ fail (printf "%s is there twice" $where) }}{{ end }}
{{- $names = append $names $model.name }}
{{- if not (hasKey $catalog.models $model.model) }}
{{- fail (printf "%s: no model %q; choose of %s" $where $model.model (keys $catalog.models | sortAlpha | join ", ")) }}
{{- end }}
{{- $entry := get $catalog.models $model.model }}
{{- $hardware := $model.hardware | default $entry.hardware }}
{{- if not (hasKey $profiles $hardware) }}
{{- fail (printf "%s: no hardware profile %q; choose of %s" $where $hardware (keys $profiles | sortAlpha | join ", ")) }}
{{- end }}
{{- $profile := get $profiles $hardware }}
{{- if ne (int $entry.tensor_parallel) (max 1 (int $profile.gpus) | int) }}
{{- fail (printf "%s: %s runs on %d GPUs, and %s has %d" $where $model.model (int $entry.tensor_parallel) $hardware (int $profile.gpus)) }}
{{- end }}
{{- if not (or $.Values.images.allowTag (regexMatch "^(hf://[^:]+:[0-9a-f]{40}|oci(\\+[a-z]+)?://.+@sha256:[0-9a-f]{64}|(s3|gs|pvc)://.+)$" $model.uri)) }}
{{- fail (printf "%s: %s names no commit or digest, so other weights could be served tomorrow: pin it, or set images.allowTag for development" $where $model.uri) }}
{{- end }}
{{- if and (ne $model.scaling.by "none") (lt (int $model.scaling.maxReplicas) (int $model.replicas)) }}
{{- fail (printf "%s: scaling.maxReplicas %d is below replicas %d" $where (int $model.scaling.maxReplicas) (int $model.replicas)) }}
{{- end }}
{{- if and $model.localCache.enabled (not $model.localCache.nodeGroups) }}
{{- fail (printf "%s: localCache names no nodeGroups" $where) }}
{{- end }}
{{- $shared := dict "arguments" list "environment" list }}
{{- range list $profile $catalog.common (get $catalog.tasks $entry.task) $entry }}
{{- $_ := set $shared "arguments" (concat $shared.arguments (.arguments | default list)) }}
{{- $_ := set $shared "environment" (concat $shared.environment (.environment | default list)) }}
{{- end }}
{{- $models = append $models (merge (dict "catalog" $entry "profile" $profile "given" $shared "deployment" (printf "%s-%s" $model.name (ternary "predictor" "kserve" (eq $model.kind "InferenceService")))) $model) }}
{{- end }}
{{- toJson $models }}
{{- end }}

{{/* A number as it was written: Helm reads all of them as floats. */}}
{{- define "m4rag.number" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* vLLM's arguments, a JSON list. What is said later of a flag replaces what was said before. */}}
{{- define "m4rag.arguments" -}}
{{- $order := list }}
{{- $said := dict }}
{{- $own := list (dict "flag" "--max-model-len" "value" .catalog.max_model_len) (dict "flag" "--tensor-parallel-size" "value" .catalog.tensor_parallel) (dict "flag" "--shutdown-timeout" "value" .timeoutSeconds) }}
{{- range concat $own .given.arguments }}
{{- $text := .flag }}
{{- if hasKey . "value" }}{{ $text = printf "%s=%s" .flag (include "m4rag.number" .value) }}{{ end }}
{{- if not (hasKey $said .flag) }}{{ $order = append $order .flag }}{{ end }}
{{- $_ := set $said .flag $text }}
{{- end }}
{{- range .arguments }}
{{- $flag := splitList "=" . | first }}
{{- if not (hasKey $said $flag) }}{{ $order = append $order $flag }}{{ end }}
{{- $_ := set $said $flag . }}
{{- end }}
{{- $texts := list }}
{{- range $order }}{{ $texts = append $texts (get $said .) }}{{ end }}
{{- toJson $texts }}
{{- end }}

{{/* The container's variables, a JSON list. */}}
{{- define "m4rag.environment" -}}
{{- $fixed := list (dict "name" "HOME" "value" "/scratch") (dict "name" "USER" "value" "vllm") (dict "name" "VLLM_CACHE_ROOT" "value" "/scratch/vllm") }}
{{- if not (hasPrefix "hf://" .uri) }}{{ $fixed = append $fixed (dict "name" "HF_HUB_OFFLINE" "value" "1") }}{{ end }}
{{- $order := list }}
{{- $said := dict }}
{{- range concat .given.environment $fixed }}
{{- if not (hasKey $said .name) }}{{ $order = append $order .name }}{{ end }}
{{- $_ := set $said .name .value }}
{{- end }}
{{- $variables := list }}
{{- range $order }}{{ $variables = append $variables (dict "name" . "value" (get $said .)) }}{{ end }}
{{- toJson $variables }}
{{- end }}

{{/* Requests and limits. */}}
{{- define "m4rag.resources" -}}
{{- $profile := .profile }}
{{- range $kind := list "requests" "limits" }}
{{ $kind }}:
  {{- toYaml (get $profile $kind) | nindent 2 }}
  {{- if $profile.gpus }}
  {{ $profile.gpu_resource }}: {{ printf "%.0f" $profile.gpus | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The rolling update. */}}
{{- define "m4rag.rollout" -}}
{{- if eq .rollout "surge" }}{maxUnavailable: 0, maxSurge: 1}{{ else }}{maxUnavailable: 1, maxSurge: 0}{{ end }}
{{- end }}

{{/* What both kinds say of the pod. */}}
{{- define "m4rag.pod" -}}
serviceAccountName: {{ .serviceAccount }}
automountServiceAccountToken: false
enableServiceLinks: false
# Leaves the route (15 s), finishes its answers, exits (15 s).
terminationGracePeriodSeconds: {{ add 15 .timeoutSeconds 15 }}
securityContext:
  {{- include "m4rag.podSecurity" . | nindent 2 }}
{{- with .profile.node_selector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .profile.tolerations }}
tolerations:
  {{- toYaml .profile.tolerations | nindent 2 }}
{{- end }}
{{- end }}

{{/* What both kinds say of the container. */}}
{{- define "m4rag.container" -}}
image: {{ .image }}
imagePullPolicy: IfNotPresent
env: {{ include "m4rag.environment" . }}
lifecycle:
  preStop:
    sleep:
      seconds: 15
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop: [ALL]
  privileged: false
  # NVIDIA's hook writes the linker's cache into the container before it starts.
  readOnlyRootFilesystem: {{ eq (int .profile.gpus) 0 }}
  runAsNonRoot: true
  seccompProfile:
    type: RuntimeDefault
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  - {name: dshm, mountPath: /dev/shm}
  - {name: scratch, mountPath: /scratch}
  - {name: tmp, mountPath: /tmp}
{{- end }}

{{/* The probes, with httpGet for an InferenceService: the preset of the other kind has it, over TLS. */}}
{{- define "m4rag.probes" -}}
{{- $plain := eq .kind "InferenceService" }}
{{- range $name, $numbers := dict "startupProbe" (list 10 240) "readinessProbe" (list 5 3) "livenessProbe" (list 10 6) }}
{{ $name }}:
  {{- if $plain }}
  httpGet: {path: /health, port: 8080}
  {{- end }}
  periodSeconds: {{ index $numbers 0 }}
  timeoutSeconds: 5
  failureThreshold: {{ index $numbers 1 }}
{{- end }}
{{- end }}

{{/* The volumes. */}}
{{- define "m4rag.volumes" -}}
- name: dshm
  emptyDir:
    medium: Memory
    sizeLimit: {{ .profile.shm }}
- name: scratch
  emptyDir: {}
- name: tmp
  emptyDir: {}
{{- end }}

{{/* Labels that pods get, too. */}}
{{- define "m4rag.modelLabels" -}}
m4rag.io/model: {{ .model }}
{{- with .queue }}
kueue.x-k8s.io/queue-name: {{ . }}
{{- end }}
{{- end }}

{{- define "m4rag.runtimeSpec" -}}
annotations:
  prometheus.kserve.io/path: /metrics
  prometheus.kserve.io/port: "8080"
supportedModelFormats:
  - {name: vLLM, version: "1", autoSelect: false}
protocolVersions: [v2]
multiModel: false
containers:
  - name: kserve-container
    {{- include "m4rag.container" . | nindent 4 }}
    command: [python3, -m, vllm.entrypoints.openai.api_server]
    args:
      - --model=/mnt/models
      - --port=8080
      - --served-model-name={{ .catalog.served_name }}
      {{- range include "m4rag.arguments" . | fromJsonArray }}
      - {{ . | quote }}
      {{- end }}
    ports:
      - {name: http1, containerPort: 8080, protocol: TCP}
    {{- include "m4rag.probes" . | nindent 4 }}
volumes:
  {{- include "m4rag.volumes" . | nindent 2 }}
{{- end }}

{{- define "m4rag.predictor" -}}
{{- include "m4rag.pod" . }}
{{- if eq .scaling.by "none" }}
minReplicas: {{ .replicas }}
maxReplicas: {{ .replicas }}
{{- end }}
timeout: {{ .timeoutSeconds }}
deploymentStrategy:
  type: RollingUpdate
  rollingUpdate: {{ include "m4rag.rollout" . }}
model:
  modelFormat: {name: vLLM, version: "1"}
  runtime: {{ .name }}
  storageUri: {{ .uri }}
  resources:
    {{- include "m4rag.resources" . | nindent 4 }}
{{- end }}

{{- define "m4rag.llmSpec" -}}
labels:
  {{- include "m4rag.modelLabels" . | nindent 2 }}
model:
  uri: {{ .uri }}
  name: {{ .catalog.served_name }}
parallelism:
  tensor: {{ .catalog.tensor_parallel }}
router:
  gateway: {}
  route: {}
  {{- if eq .catalog.task "generate" }}
  scheduler: {}
  {{- end }}
{{- if eq .scaling.by "none" }}
replicas: {{ .replicas }}
{{- end }}
{{- if .rolloutStrategy }}
rolloutStrategy: {{ include "m4rag.rollout" . }}
{{- end }}
template:
  {{- include "m4rag.pod" . | nindent 2 }}
  containers:
    - name: main
      {{- include "m4rag.container" . | nindent 6 }}
      args:
        {{- range include "m4rag.arguments" . | fromJsonArray }}
        - {{ . | quote }}
        {{- end }}
      resources:
        {{- include "m4rag.resources" . | nindent 8 }}
      {{- include "m4rag.probes" . | nindent 6 }}
  volumes:
    {{- include "m4rag.volumes" . | nindent 4 }}
{{- end }}
