# product-vqa with the packages that the locks pin. For a CPU:
#   docker build -t product-vqa .
# and for GPUs of NVIDIA, with PyPI's build of torch and CUDA's libraries (the driver is the host's):
#   docker build -t product-vqa:cuda --build-arg TORCH=cuda .
#   docker run --rm --gpus all -v "$PWD:/work" -v product-vqa-cache:/cache -e HF_TOKEN product-vqa:cuda training.sft ...
# `--build-arg RAY=yes` adds Ray (250 MB), for the machines of a cluster (docs/scale.md).
# Tokens are given to the container (`-e HF_TOKEN`), never to the build. linux/amd64: torch's CPU build is pinned for it.
FROM python:3.11-bookworm@sha256:35d3a4a3d5e42e02ab916d44513a050689f12c0533d45598d229672503fe77ca

ARG TORCH=cpu
ARG RAY=no
# Where pip finds torch's CPU build; its hash is in requirements-cpu.lock.
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu

ENV PATH=/opt/venv/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1

WORKDIR /opt/product-vqa
COPY requirements.lock requirements-cpu.lock requirements-cuda.lock requirements-ray.lock ./
SHELL ["/bin/bash", "-o", "errexit", "-o", "pipefail", "-c"]
RUN case "$TORCH" in \
      cpu) lock=requirements-cpu.lock; index=(--extra-index-url "$TORCH_CPU_INDEX") ;; \
      cuda) lock=requirements-cuda.lock; index=() ;; \
      *) echo "TORCH must be cpu or cuda, got $TORCH" >&2; exit 2 ;; \
    esac; \
    python -m venv /opt/venv; \
    pip install --no-deps --require-hashes "${index[@]}" -r "$lock"; \
    pip install --no-deps --require-hashes -r requirements.lock; \
    if [ "$RAY" = yes ]; then pip install --no-deps --require-hashes -r requirements-ray.lock; fi; \
    pip check

# The folders of the wheel, and what it is built from.
COPY pyproject.toml README.md LICENSE model_card.md ./
COPY product_vqa product_vqa
COPY dataset_builder dataset_builder
COPY training training
COPY inference inference
COPY local_hub local_hub
COPY quickstart quickstart
RUN pip install --no-deps --no-build-isolation .

# A user without rights. With `--user "$(id -u):$(id -g)"` the files in /work belong to you; /cache is open for that.
RUN useradd --create-home --uid 1000 user \
    && mkdir --mode 1777 /cache \
    && install --directory --owner user --group user /work
USER 1000
ENV HF_HOME=/cache/huggingface
WORKDIR /work
# `docker run product-vqa MODULE OPTIONS` is `python -m MODULE OPTIONS`. Commands save their state on SIGTERM; as the
# first process of the container, launch several processes with `product_vqa.launch`.
ENTRYPOINT ["python", "-m"]
CMD ["quickstart"]
