package pool

// load is what placing needs to know of an instance.
type load struct {
	accepting bool // it runs, and takes attempts
	limit     int  // attempts at a time
	inFlight  int
	alone     bool // an attempt runs alone in it
	claimed   bool // an attempt waits to run alone in it
}

// slots is how many more attempts an instance may get.
func (l load) slots() int {
	if !l.accepting || l.alone || l.claimed {
		return 0
	}
	return max(l.limit-l.inFlight, 0)
}

// spread gives the instance with the least in flight that has room, or -1.
func spread(loads []load) int {
	best := -1
	for n, l := range loads {
		if l.slots() > 0 && (best < 0 || l.inFlight < loads[best].inFlight) {
			best = n
		}
	}
	return best
}

// seclude gives the instance for an attempt that has to run alone: the one that will be empty first, or -1. An instance
// that isn't empty is claimed: it gets nothing more until it is.
func seclude(loads []load) int {
	best := -1
	for n, l := range loads {
		if l.accepting && !l.alone && !l.claimed && (best < 0 || l.inFlight < loads[best].inFlight) {
			best = n
		}
	}
	return best
}

// Share is how many instances a worker runs of an agent's, which are counted over the whole fleet, by the partitions that
// it owns: at least one if it owns any.
func Share(instances, owned, partitions int) int {
	if owned <= 0 || partitions <= 0 {
		return 0
	}
	return max(1, (instances*owned+partitions/2)/partitions)
}
