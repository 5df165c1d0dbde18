package history

// Counters are an agent's figures of all outcomes so far, of one version or summed up.
type Counters struct {
	Received     int64
	Completed    int64
	Failed       int64
	Retried      int64
	DeadLettered int64 `db:"dead_lettered"`
	Rejected     int64
	Cancelled    int64
	Discarded    int64
	RunMS        int64 `db:"run_ms"`
	CompletedMS  int64 `db:"completed_ms"` // of RunMS, what completing attempts ran
	LatencyMS    int64 `db:"latency_ms"`
	LatencyMax   int64 `db:"latency_max"`

	Reopened
}

// Reopened counts the tasks that were finished and began a new round, by what had finished them: Counters has them no longer
// under it.
type Reopened struct {
	ReopenedCompleted    int64 `db:"reopened_completed"`
	ReopenedFailed       int64 `db:"reopened_failed"`
	ReopenedDeadLettered int64 `db:"reopened_dead_lettered"`
	ReopenedRejected     int64 `db:"reopened_rejected"`
	ReopenedCancelled    int64 `db:"reopened_cancelled"`
	ReopenedDiscarded    int64 `db:"reopened_discarded"`
}

// Ever counts what has ever happened, so that none of its figures falls: a task that began a new round counts once for each
// of the rounds that are finished. It has no Reopened and nothing of times.
func (c *Counters) Ever() Counters {
	return Counters{Received: c.Received, Retried: c.Retried,
		Completed:    c.Completed + c.ReopenedCompleted,
		Failed:       c.Failed + c.ReopenedFailed,
		DeadLettered: c.DeadLettered + c.ReopenedDeadLettered,
		Rejected:     c.Rejected + c.ReopenedRejected,
		Cancelled:    c.Cancelled + c.ReopenedCancelled,
		Discarded:    c.Discarded + c.ReopenedDiscarded}
}

// Finished counts the tasks that are finished.
func (c *Counters) Finished() int64 {
	return c.Completed + c.Failed + c.DeadLettered + c.Rejected + c.Cancelled + c.Discarded
}

// Between counts the tasks that have had an attempt and aren't finished.
func (c *Counters) Between() int64 { return c.Received - c.Finished() }

// Add adds another's figures.
func (c *Counters) Add(o *Counters) {
	c.Received += o.Received
	c.Completed += o.Completed
	c.Failed += o.Failed
	c.Retried += o.Retried
	c.DeadLettered += o.DeadLettered
	c.Rejected += o.Rejected
	c.Cancelled += o.Cancelled
	c.Discarded += o.Discarded
	c.RunMS += o.RunMS
	c.CompletedMS += o.CompletedMS
	c.LatencyMS += o.LatencyMS
	c.LatencyMax = max(c.LatencyMax, o.LatencyMax)
	c.ReopenedCompleted += o.ReopenedCompleted
	c.ReopenedFailed += o.ReopenedFailed
	c.ReopenedDeadLettered += o.ReopenedDeadLettered
	c.ReopenedRejected += o.ReopenedRejected
	c.ReopenedCancelled += o.ReopenedCancelled
	c.ReopenedDiscarded += o.ReopenedDiscarded
}

func (c *Counters) count(status int16) {
	switch status {
	case completed:
		c.Completed++
	case failed:
		c.Failed++
	case deadLettered:
		c.DeadLettered++
	case cancelled:
		c.Cancelled++
	case rejected:
		c.Rejected++
	case discarded:
		c.Discarded++
	}
}

// reopen takes back what count counted.
func (c *Counters) reopen(status int16) {
	switch status {
	case completed:
		c.Completed--
		c.ReopenedCompleted++
	case failed:
		c.Failed--
		c.ReopenedFailed++
	case deadLettered:
		c.DeadLettered--
		c.ReopenedDeadLettered++
	case cancelled:
		c.Cancelled--
		c.ReopenedCancelled++
	case rejected:
		c.Rejected--
		c.ReopenedRejected++
	case discarded:
		c.Discarded--
		c.ReopenedDiscarded++
	}
}

// delta is what a batch adds to a row of counters.
type delta struct {
	Counters
	latency Histogram
}

// prior is what is known of a task from before an attempt.
type prior struct {
	seen    bool   // an attempt of it was settled
	final   int16  // the status that finished its last round; 0: none, or a new round has begun
	version []byte // that did
	cleared bool   // its last round was finished before the counters were cleared, which know nothing of it

	redrives int32 // of its latest attempt
	began    int64 // Unix milliseconds, when that round began, where it was a redrive; 0: not known
}

// since is when an attempt's round began, in Unix milliseconds, or 0 where that isn't known: at the event's publish, or at
// the redrive. What a dead letter has waited for a person says nothing of how fast its agent is.
func (p prior) since(a *attempt) int64 {
	switch {
	case a.redrives == 0:
		return a.published
	case p.redrives == a.redrives && p.began > 0:
		return p.began
	case a.number == 1 && a.started > 0: // its first: it was dispatched by the redrive
		return a.dispatched
	}
	return 0
}

// fold adds an attempt to the counters of its version and says what is known of its task now. of gives the counters of a
// version of the same agent.
func (p prior) fold(a *attempt, of func(version []byte) *delta) prior {
	mine := of(a.version)
	if !p.seen {
		mine.Received++
	}
	if a.started > 0 {
		ran := max(0, a.settled-a.started)
		mine.RunMS += ran
		if a.status == completed {
			mine.CompletedMS += ran
		}
	}
	if p.final != 0 { // a new round: the task counts by its latest final only
		of(p.version).reopen(p.final)
	}
	since := p.since(a)
	now := prior{seen: true, redrives: a.redrives}
	if a.redrives > 0 {
		now.began = since
	}
	if !a.final() {
		mine.Retried++
		return now
	}
	mine.count(a.status)
	if since > 0 {
		took := max(0, a.settled-since)
		mine.LatencyMS += took
		mine.LatencyMax = max(mine.LatencyMax, took)
		mine.latency.Add(took)
	}
	now.final, now.version = a.status, a.version
	return now
}
