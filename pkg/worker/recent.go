package worker

import "time"

// recent remembers what was learnt, each for a time of its own, and never forgets anything before that: whoever tries again
// what has taught it relies on all of it, however much that is. It is for one goroutine at a time.
type recent[K comparable, V any] struct {
	known map[K]learnt[V]
	sweep int // how many there are when those are looked for whose time is over
}

type learnt[V any] struct {
	value V
	until time.Time
}

// get gives what is known.
func (m *recent[K, V]) get(key K, now time.Time) (value V, ok bool) {
	l, ok := m.known[key]
	if !ok || !now.Before(l.until) {
		return value, false
	}
	return l.value, true
}

// put remembers a value from now on for a while, in place of what was known.
func (m *recent[K, V]) put(key K, value V, now time.Time, ttl time.Duration) {
	const few = 1000
	if m.known == nil {
		m.known, m.sweep = map[K]learnt[V]{}, few
	}
	m.known[key] = learnt[V]{value, now.Add(ttl)}
	if len(m.known) < m.sweep {
		return
	}
	for k, l := range m.known {
		if !now.Before(l.until) {
			delete(m.known, k)
		}
	}
	m.sweep = max(few, 2*len(m.known))
}
