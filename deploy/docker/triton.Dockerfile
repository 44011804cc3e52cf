# A scenario's pool: NVIDIA's server with the entry script. Nothing else is in it; models come when a pod starts.
# Build from the repository's root: buildah bud -f deploy/docker/triton.Dockerfile -t recmesh/triton:VERSION .
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver
ARG TRITON_TAG=24.10-py3

FROM ${TRITON_IMAGE}:${TRITON_TAG}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="recmesh triton" \
    org.opencontainers.image.description="A scoring pool of recmesh, a recommender" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --chmod=0755 deploy/docker/triton-entry.sh /usr/local/bin/recmesh-triton
ENV HOME=/tmp
USER 10001:10001
ENTRYPOINT ["/usr/local/bin/recmesh-triton"]
