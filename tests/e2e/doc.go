// Package e2e tests Reeve from outside, as processes, over what its users see: Kafka's topics, REST and exit codes. One
// body runs on kfake and on the Kafka of the test run.
package e2e
