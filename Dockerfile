# The image that every service of docker-compose.yml runs: the wheel, and exactly what requirements/server.txt names.
#
#   docker build --tag nightshift .

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
WORKDIR /src

# Locks first: as long as they stay, a rebuild downloads nothing. The builder stays behind; what runs has no pip.
COPY requirements/build.txt requirements/server.txt requirements/
RUN python -m venv /opt/builder && \
    python -m venv --without-pip /opt/nightshift && \
    /opt/builder/bin/pip install --only-binary :all: --require-hashes --requirement requirements/build.txt && \
    /opt/builder/bin/pip --python /opt/nightshift/bin/python install --only-binary :all: --require-hashes \
        --requirement requirements/server.txt

COPY pyproject.toml README.md LICENSE ./
COPY scheduler scheduler
COPY policies policies
COPY workers workers
COPY api api
COPY cli cli
RUN /opt/builder/bin/pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /tmp/wheel . && \
    /opt/builder/bin/pip --python /opt/nightshift/bin/python install --no-deps --no-index /tmp/wheel/nightshift-*.whl && \
    /opt/builder/bin/pip --python /opt/nightshift/bin/python check

FROM python:3.11-slim-bookworm
# A fixed number, so that the owner of a volume is the same in every version of the image.
RUN groupadd --gid 10001 nightshift && \
    useradd --uid 10001 --gid nightshift --no-create-home --home-dir /var/lib/nightshift --shell /usr/sbin/nologin nightshift && \
    install --directory --owner nightshift --group nightshift --mode 0700 /var/lib/nightshift
COPY --from=build /opt/nightshift /opt/nightshift
ENV PATH=/opt/nightshift/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NIGHTSHIFT_DATA=/var/lib/nightshift
USER 10001:10001
WORKDIR /var/lib/nightshift
EXPOSE 8470
STOPSIGNAL SIGTERM
ENTRYPOINT ["nightshift"]
CMD ["--help"]
