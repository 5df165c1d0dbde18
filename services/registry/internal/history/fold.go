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
}

func (c *Counters) count(status int16, n int64) {
	switch status {
	case completed:
		c.Completed += n
	case failed:
		c.Failed += n
	case deadLettered:
		c.DeadLettered += n
	case cancelled:
		c.Cancelled += n
	case rejected:
		c.Rejected += n
	case discarded:
		c.Discarded += n
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
		of(p.version).count(p.final, -1)
	}
	if !a.final() {
		mine.Retried++
		return prior{seen: true}
	}
	mine.count(a.status, 1)
	if a.published > 0 {
		took := max(0, a.settled-a.published)
		mine.LatencyMS += took
		mine.LatencyMax = max(mine.LatencyMax, took)
		mine.latency.Add(took)
	}
	return prior{seen: true, final: a.status, version: a.version}
}
