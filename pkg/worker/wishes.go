package worker

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Wishes keeps what people want of an agent's tasks, for the engine that runs now and for later ones: the last wish of a
// kind for each task. The zero value is ready. Its methods are safe for concurrent use.
type Wishes struct {
	mu      sync.Mutex
	cancels byTask[*Cancellation]
	hastens byTask[*Hastening]
	engine  *Engine
}

// Cancel wants a task to end.
func (w *Wishes) Cancel(x Cancellation) {
	w.mu.Lock()
	w.cancels.put(&x, time.Now())
	e := w.engine
	w.mu.Unlock()
	if e != nil {
		e.CancelTask(x)
	}
}

// Hasten wants a task's next attempt to start at once.
func (w *Wishes) Hasten(x Hastening) {
	w.mu.Lock()
	w.hastens.put(&x, time.Now())
	e := w.engine
	w.mu.Unlock()
	if e != nil {
		e.HastenTask(x)
	}
}

// Attach gives an engine those there are, and those to come; nil lets go of the last one.
func (w *Wishes) Attach(e *Engine) {
	w.mu.Lock()
	w.engine = e
	cancels, hastens := slices.Collect(maps.Values(w.cancels.all)), slices.Collect(maps.Values(w.hastens.all))
	w.mu.Unlock()
	if e == nil {
		return
	}
	for _, x := range cancels {
		e.CancelTask(*x)
	}
	for _, x := range hastens {
		e.HastenTask(*x)
	}
}

// wish is what somebody wants of a task.
type wish interface {
	comparable
	task() string // its id
	until() time.Time
}

// byTask keeps wishes by their task's id until they expire. The zero value is ready.
type byTask[W wish] struct {
	all  map[string]W
	look time.Time // when there may be one that has expired
}

// lookPause is how long at least expired wishes aren't looked for again: whoever finds one sees that it has expired.
const lookPause = time.Minute

// any reports whether there is one at all.
func (b *byTask[W]) any() bool { return len(b.all) > 0 }

// of is what is wanted of a task, which may have expired.
func (b *byTask[W]) of(s *slot) (w W, ok bool) {
	if len(b.all) > 0 {
		w, ok = b.all[string(taskID(s.origin()))]
	}
	return w, ok
}

// put takes a wish, in place of an earlier one for the same task.
func (b *byTask[W]) put(w W, now time.Time) {
	b.prune(now)
	if b.all == nil {
		b.all = map[string]W{}
	}
	b.lookAt(w.until(), now)
	b.all[w.task()] = w
}

// drop takes a wish back, unless another one has come in its place.
func (b *byTask[W]) drop(w W) {
	if id := w.task(); b.all[id] == w {
		delete(b.all, id)
	}
}

// prune forgets what has expired. Before something can have it costs nothing, however many wishes there are.
func (b *byTask[W]) prune(now time.Time) {
	if len(b.all) == 0 || now.Before(b.look) {
		return
	}
	b.look = time.Time{}
	for id, w := range b.all {
		if now.After(w.until()) {
			delete(b.all, id)
		} else {
			b.lookAt(w.until(), now)
		}
	}
}

// lookAt sees to it that a wish is looked at that expires at a time.
func (b *byTask[W]) lookAt(expires, now time.Time) {
	if at := now.Add(lookPause); expires.Before(at) {
		expires = at
	}
	if b.look.IsZero() || len(b.all) == 0 || expires.Before(b.look) {
		b.look = expires
	}
}
