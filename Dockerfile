# SPDX-License-Identifier: Apache-2.0
#
#   docker build -t lockstep . && docker run --rm --shm-size=1g lockstep train /opt/lockstep/share/lockstep/configs/quickstart.yaml
#
# Give --build-arg LOCKSTEP_TORCH_INDEX=INDEX where plain pip would bring torch's CUDA build.
FROM debian:12 AS build
ARG LOCKSTEP_TORCH_INDEX=
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates dpkg-dev
COPY . /lockstep
WORKDIR /lockstep
RUN LOCKSTEP_TORCH_INDEX=$LOCKSTEP_TORCH_INDEX tools/package.sh

FROM debian:12
COPY --from=build /lockstep/build/packages/*.deb /tmp/
RUN apt-get update && apt-get install -y --no-install-recommends /tmp/*.deb mpich libpython3.11-stdlib && \
    rm -rf /tmp/*.deb /var/lib/apt/lists/*
ENV PATH=/opt/lockstep/bin:$PATH
WORKDIR /data
ENTRYPOINT ["lockstep"]
