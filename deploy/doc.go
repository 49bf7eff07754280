// Package deploy holds the tests of what runs Mailpouch: the Dockerfile, docker-compose.yml, the
// systemd unit and the Kubernetes example. It is a module of its own, so that what reads
// those files never enters the module graph of a user.
package deploy
