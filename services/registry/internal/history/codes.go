package history

import "github.com/reeve-run/reeve/pkg/task"

// Status is where a task stands after an attempt.
type Status string

// The statuses. A running task has no number: nothing of it is settled. A queued one has it in a further round, see OpenRounds.
const (
	Queued       Status = "queued"
	Running      Status = "running"
	Retrying     Status = "retrying"
	Completed    Status = "completed"
	Failed       Status = "failed"
	DeadLettered Status = "dead_lettered"
	Cancelled    Status = "cancelled"
	Rejected     Status = "rejected"
	Discarded    Status = "discarded"
)

// Numbers in the table. They are never changed, only added to.
var (
	statuses = [...]Status{1: Completed, 2: Failed, 3: DeadLettered, 4: Cancelled, 5: Rejected, 6: Discarded, 7: Retrying, 8: Queued}
	outcomes = [...]task.Outcome{1: task.Completed, 2: task.Failed, 3: task.TimedOut, 4: task.Crashed, 5: task.Cancelled, 6: task.Rejected, 7: task.Discarded}
)

const (
	completed    = 1
	failed       = 2
	deadLettered = 3
	cancelled    = 4
	rejected     = 5
	discarded    = 6
	retrying     = 7
	queued       = 8
)

// statusNumber is a status's number, or 0.
func statusNumber(s Status) int16 {
	for i, known := range statuses {
		if i > 0 && known == s {
			return int16(i)
		}
	}
	return 0
}

// statusName is the status with a number.
func statusName(n int16) Status {
	if n < 1 || int(n) >= len(statuses) {
		return ""
	}
	return statuses[n]
}

// outcomeNumber is an outcome's number; what nobody knows counts as failed.
func outcomeNumber(o []byte) int16 {
	for i, known := range outcomes {
		if i > 0 && string(known) == string(o) {
			return int16(i)
		}
	}
	return 2
}

// judge is the task's status after an attempt.
func judge(outcome int16, settled []byte) int16 {
	switch task.Settled(settled) {
	case task.SettledRetry:
		return retrying
	case task.SettledDLQ:
		return deadLettered
	case task.SettledDone:
		return completed
	}
	switch outcomes[outcome] {
	case task.Cancelled:
		return cancelled
	case task.Rejected:
		return rejected
	case task.Discarded:
		return discarded
	}
	return failed
}

// settledName is how an attempt was settled, from the status after it.
func settledName(status int16) task.Settled {
	switch status {
	case completed:
		return task.SettledDone
	case retrying:
		return task.SettledRetry
	case deadLettered:
		return task.SettledDLQ
	case failed:
		return task.SettledFailed
	}
	return task.SettledDropped
}
