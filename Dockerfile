# One static binary in an empty image. Targets: mailpouch (the default: worker and enqueue),
# web (the example web application), asynqmon (the queue's monitor, with a health check).
#
#   docker build --build-arg VERSION=v1.2.3 -t mailpouch:v1.2.3 .

ARG GO_IMAGE=golang:1.26.8-bookworm
ARG ASYNQMON_IMAGE=hibiken/asynqmon:0.7.2

FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=devel
# timetzdata: time zones for EMAIL_USE_LOCALTIME, as the image has no files of them.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -o /out/ -trimpath -tags timetzdata \
    -ldflags "-s -w -X github.com/mailpouch/mailpouch/internal/cli.version=$VERSION" \
    ./cmd/worker ./cmd/enqueue ./examples/contact

FROM ${ASYNQMON_IMAGE} AS upstream

# The monitor's own image has nothing in it that could ask whether it works.
FROM scratch AS asynqmon
COPY --from=upstream /asynqmon /usr/local/bin/asynqmon
COPY --from=build /out/worker /usr/local/bin/worker
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/asynqmon"]

FROM scratch AS base
ARG VERSION=devel
LABEL org.opencontainers.image.title="Mailpouch" \
      org.opencontainers.image.description="Sends an application's mail in the background" \
      org.opencontainers.image.source="https://github.com/mailpouch/mailpouch" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/worker /out/enqueue /usr/local/bin/
USER 65532:65532

FROM base AS web
COPY --from=build /out/contact /usr/local/bin/contact
EXPOSE 8000
ENTRYPOINT ["/usr/local/bin/contact"]

FROM base AS mailpouch
EXPOSE 8025
ENTRYPOINT ["/usr/local/bin/worker"]
CMD ["run"]
