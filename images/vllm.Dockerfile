# vLLM as m4rag's services run it: the published image, of the reviewed version, with a user that is not root. KServe's
# pods say `runAsNonRoot`, and the published image, which says root, would not start in them. Built by `make images`.

# vllm/vllm-openai and python:3.11-slim by digest.
ARG VLLM_IMAGE
ARG PYTHON_IMAGE

# What is in it, and that it is what the arguments in m4rag/deploy/models.yaml were reviewed for.
FROM ${VLLM_IMAGE} AS packages
ARG VLLM_VERSION
WORKDIR /packages
RUN python3 -c "from importlib.metadata import version as v; import sys; \
        sys.exit(v('vllm').split('+')[0] != '${VLLM_VERSION}' and 'this is vLLM ' + v('vllm') + ', not ${VLLM_VERSION}')" \
    && python3 -c "from importlib.metadata import distributions as all; \
        print(*sorted({f'{d.name}=={d.version}' for d in all()}), sep='\n')" > packages.txt

FROM ${PYTHON_IMAGE} AS sbom
ARG SOURCE_DATE_EPOCH
WORKDIR /packages
COPY images/tools.txt images/
RUN python -m venv /opt/tools \
    && /opt/tools/bin/pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes -r images/tools.txt
COPY --from=packages /packages/packages.txt ./
RUN /opt/tools/bin/cyclonedx-py requirements --output-reproducible --of JSON -o sbom.cdx.json packages.txt

FROM ${VLLM_IMAGE} AS vllm
COPY --from=sbom /packages/sbom.cdx.json /opt/m4rag/
RUN install -d -m 1777 /home/vllm
# Caches go to HOME, which pods put on a volume; USER, because torch asks for the user's name.
ENV HOME=/home/vllm \
    USER=vllm \
    VLLM_NO_USAGE_STATS=1 \
    DO_NOT_TRACK=1
WORKDIR /home/vllm
ARG VERSION
ARG REVISION
ARG CREATED
LABEL org.opencontainers.image.title="m4rag-vllm" \
      org.opencontainers.image.description="vLLM for m4rag's services, not root" \
      org.opencontainers.image.source="https://github.com/m4rag/m4rag" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
USER 10001:10001
