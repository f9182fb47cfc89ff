# Trains, and serves, in a cluster (docs/kubernetes), on processors; GPUs also need tensorflow[and-cuda]. From the top of
# the checkout:
# docker build -f docs/docker/train.Dockerfile -t nlp-rnn:0.1.0 .
FROM python:3.13-slim
COPY setup.cfg pyproject.toml README.md LICENSE NOTICE constraints.txt /src/
COPY nlp_rnn /src/nlp_rnn
COPY pipelines /src/pipelines
COPY configs /src/configs
RUN pip install --no-cache-dir -c /src/constraints.txt '/src[serve,grpc]' && rm -rf /src/nlp_rnn /src/pipelines
ENV NLP_RNN_CACHE=/data/cache
WORKDIR /src
