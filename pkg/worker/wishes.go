package worker

import (
	"slices"
	"sync"
	"time"
)

// Wishes keeps what people want of an agent's tasks, for the engine that runs now and for later ones. The zero value is
// ready. Its methods are safe for concurrent use.
type Wishes struct {
	mu      sync.Mutex
	cancels []Cancellation
	hastens []Hastening
	engine  *Engine
}

// Cancel wants a task to end.
func (w *Wishes) Cancel(x Cancellation) {
	w.mu.Lock()
	now := time.Now()
	w.cancels = append(slices.DeleteFunc(w.cancels, func(old Cancellation) bool { return now.After(old.Expires) }), x)
	e := w.engine
	w.mu.Unlock()
	if e != nil {
		e.CancelTask(x)
	}
}

// Hasten wants a task's next attempt to start at once.
func (w *Wishes) Hasten(x Hastening) {
	w.mu.Lock()
	now := time.Now()
	w.hastens = append(slices.DeleteFunc(w.hastens, func(old Hastening) bool { return now.After(old.Expires) }), x)
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
	cancels, hastens := slices.Clone(w.cancels), slices.Clone(w.hastens)
	w.mu.Unlock()
	if e == nil {
		return
	}
	for _, x := range cancels {
		e.CancelTask(x)
	}
	for _, x := range hastens {
		e.HastenTask(x)
	}
}
