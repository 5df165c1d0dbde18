// Demo is the program behind `make demo`. It starts `reeve dev` with the agents of deployments/demo, publishes real
// GitHub webhook deliveries to Kafka with a producer that knows nothing of Reeve, follows the outcomes as any reader of
// the outcomes topic could, and closes with a table.
//
// What must become of every single task is worked out from the input alone (plan.go), before anything runs; what
// became of it is read from Kafka (ledger.go) and compared with the registry's figures (figures.go). The demo succeeds
// only if all three agree to the task.
package main
