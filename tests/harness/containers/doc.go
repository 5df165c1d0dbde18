// Package containers runs Reeve in containers for the tests of package e2e: a Kafka and a Postgres of their own on a
// network, and the services of Reeve's images, which `make images` builds.
//
// It stands apart from the harness so that what needs no container engine doesn't build the client of one.
package containers
