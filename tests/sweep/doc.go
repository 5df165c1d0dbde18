// Package sweep kills and stops Reeve's services at random moments while tasks run, and accounts for every task.
//
// Nothing in it trusts what Reeve says of itself but two things that a user sees: the records on the user's topic, and the
// outcomes topic as a read_committed reader gets it. What ran, and when, the agent writes down. From the three the account
// decides: no task lost, none finished twice, no attempt settled twice, none begun again after its final outcome was
// visible, and the tasks of one key never overlapping. The process table says that no agent outlives a kill by 5 s.
//
// The same account judges outages of Kafka itself, which end no attempt.
//
// Each blow waits until more than a thousand dispatched tasks are unsettled, so that it finds the system at work.
package sweep
