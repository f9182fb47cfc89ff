# Serves the models of saved_models/ on processors. From the top of the checkout:
# docker build -f docs/docker/serve.Dockerfile -t nlp-rnn-serve:0.1.0 .
# docker run -p 8501:8501 nlp-rnn-serve:0.1.0
FROM python:3.13-slim
# With jemalloc, memory grows less when models are exchanged (docs/serving.md). Debian has one version per release.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends libjemalloc2 && rm -rf /var/lib/apt/lists/*
COPY docs/docker/requirements_cpu.txt constraints.txt /src/
RUN pip install --no-cache-dir -c /src/constraints.txt -r /src/requirements_cpu.txt
COPY setup.cfg pyproject.toml README.md LICENSE NOTICE /src/
COPY nlp_rnn /src/nlp_rnn
COPY pipelines /src/pipelines
COPY configs /src/configs
RUN pip install --no-cache-dir --no-deps /src
COPY saved_models /models
ENV LD_PRELOAD=libjemalloc.so.2
USER 65534
EXPOSE 8501
CMD ["nlp-rnn", "serve", "--models", "/models", "--host", "0.0.0.0"]
