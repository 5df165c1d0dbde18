// Package testenv gives tests a Kafka and a Postgres, whatever the machine has.
//
// Each comes from the first provider that can give it:
//
//	Kafka     external   REEVE_TEST_KAFKA_BROKERS names it
//	          apache     Apache Kafka from Maven, where java and mvn are; the jars are kept in the user's cache directory
//	          kfake      franz-go's broker, in this process
//	Postgres  external   REEVE_TEST_DATABASE_URL names it
//	          installed  the server's binaries on PATH or where Debian and Red Hat put them
//	          embedded   binaries that embedded-postgres downloads once
//
// REEVE_TEST_KAFKA=apache or kfake leaves no choice. A server runs until Stop or until this process ends, however it
// ends: a small shell is its parent and holds the read end of a pipe whose write end only this process has.
//
// One server serves all packages of a run of `make test`: the command withenv starts both, names them in the environment
// and runs the tests below it. A bare `go test` starts its own on first use, one a process.
//
// Tests keep apart by names: Prefix gives a test a prefix for everything it makes on Kafka, Schema a schema in Postgres;
// both are removed at its end. So tests may run side by side.
//
// A test's own Apache Kafka is compiled little by Java and collected by one thread, since it shares two cores with the tests.
// StartServerKafka is for measurements, and for the one that withenv gives to a whole run.
//
// SecuredKafka is another Apache Kafka with TLS, SASL and ACLs, for the tests that are about these.
//
// Why here and not in tests/: services' own tests need it as well, and the tests module requires services, so that
// services can't import it. What needs services' binaries (starting them, speaking REST) is in tests/harness.
package testenv
