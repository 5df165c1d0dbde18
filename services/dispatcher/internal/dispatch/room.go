package dispatch

import (
	"sync"

	"github.com/reeve-run/reeve/pkg/spec"
)

// Bound is spec.QueueBound.
const Bound = spec.QueueBound

// Room counts the free places of an agent's task partitions: what a look at Kafka found, less what was routed since that
// look began, less what is reserved. It errs on the side of less, until the next look.
type Room struct {
	mu        sync.Mutex
	unsettled []int64 // as of the last look
	reserved  []int64 // by the transaction under way
	routed    []int64 // ever
	seen      []int64 // of routed, when the last look began
	next      int     // the partition of records that may go anywhere
	streak    int     // records that went there one after the other
	spread    uint32  // partitions that Place has gone round
	full      bool    // a place was asked for in vain since the last look
	brisk     bool    // the last look found that many tasks had been settled
	looked    bool
	wake      chan struct{}
}

// NewRoom is empty task partitions.
func NewRoom(partitions int32) *Room {
	return &Room{
		unsettled: make([]int64, partitions),
		reserved:  make([]int64, partitions),
		routed:    make([]int64, partitions),
		seen:      make([]int64, partitions),
		wake:      make(chan struct{}, 1),
	}
}

// Partitions is how many partitions it counts.
func (r *Room) Partitions() int32 { return int32(len(r.routed)) }

// Wake says that a look found more room.
func (r *Room) Wake() <-chan struct{} { return r.wake }

// maxStreak is how many records that may go anywhere go to one partition before the next has its turn.
const maxStreak = 64

// Reserve takes places on the partitions that are wanted, in order, until one has none, and says how many these are. Where
// it is all the same (negative), any that has room will do, and takes the want's place. These are taken in turn, a
// transaction or maxStreak records each: every further partition makes a transaction dearer for the broker, and wakes its
// readers once more.
func (r *Room) Reserve(wants []int32) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, want := range wants {
		ok := false
		if want >= 0 {
			ok = r.take(int(want))
		} else {
			wants[i], ok = r.any()
		}
		if !ok {
			return i
		}
	}
	return len(wants)
}

// any takes a place on whichever partition has its turn.
func (r *Room) any() (p int32, ok bool) {
	for range r.routed {
		if r.streak < maxStreak && r.take(r.next) {
			r.streak++
			return int32(r.next), true
		}
		r.turn()
	}
	if ok = r.take(r.next); ok { // the only one with room, or the only one
		r.streak++
	}
	return int32(r.next), ok
}

// Place takes a place for a record that somebody else than the lane writes, as Reserve has it. It counts as used until the
// next look, whether the record is written or not.
func (r *Room) Place(want int32) (p int32, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range r.routed {
		p = want
		if want < 0 {
			p = int32(r.spread % uint32(len(r.routed)))
			r.spread++
		}
		if r.free(int(p)) {
			r.routed[p]++
			return p, true
		}
		if want >= 0 {
			break
		}
	}
	r.full = true
	return p, false
}

// turn gives the next partition its turn.
func (r *Room) turn() { r.next, r.streak = (r.next+1)%len(r.routed), 0 }

func (r *Room) take(p int) bool {
	if !r.free(p) {
		r.full = true
		return false
	}
	r.reserved[p]++
	return true
}

func (r *Room) free(p int) bool { return r.unsettled[p]+r.reserved[p]+r.routed[p]-r.seen[p] < Bound }

// Ended says what became of the reserved places: used by a transaction that was committed, or free again.
func (r *Room) Ended(committed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p, n := range r.reserved {
		if committed {
			r.routed[p] += n
		}
		r.reserved[p] = 0
	}
	if r.streak > 0 {
		r.turn()
	}
}

// Restless reports whether the last look is out of date: tasks were unsettled then or were routed since, or there was none.
func (r *Room) Restless() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.looked {
		return true
	}
	for p := range r.routed {
		if r.unsettled[p] > 0 || r.routed[p] != r.seen[p] {
			return true
		}
	}
	return false
}

// Urgent reports whether somebody waits for a place and another look is likely to find one: an agent that is about as fast
// as the dispatcher shouldn't wait for the next regular look.
func (r *Room) Urgent() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.full && r.brisk
}

// Look notes that a look begins; what it finds is given to the function that it returns. Partitions beyond the found ones
// count as empty.
func (r *Room) Look() (found func(unsettled []int64)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := append([]int64(nil), r.routed...)
	return func(unsettled []int64) {
		r.mu.Lock()
		defer r.mu.Unlock()
		var settled int64
		for p, u := range unsettled[:min(len(unsettled), len(before))] {
			settled += r.unsettled[p] + before[p] - r.seen[p] - u
		}
		r.full, r.brisk, r.looked = false, settled >= Bound/4, true
		clear(r.unsettled)
		copy(r.unsettled, unsettled)
		copy(r.seen, before)
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
}

// Unsettled is the sum over the partitions, as of the last look; ok is false before the first.
func (r *Room) Unsettled() (n int64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range r.unsettled {
		n += u
	}
	return n, r.looked
}
