package fleet

import "github.com/reeve-run/reeve/pkg/status"

// maxProgress is how many tasks' progress is remembered; beyond it half of it goes.
const maxProgress = 10_000

// progressKey names a task of an agent.
type progressKey struct{ agent, task string }

// progressed takes what a running task has told.
func (f *Fleet) progressed(p status.Progress) {
	key := progressKey{p.Topic + "/" + p.AgentName, p.Task}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.progress == nil {
		f.progress = map[progressKey]status.Progress{}
	}
	if old, ok := f.progress[key]; ok && old.Timestamp > p.Timestamp {
		return
	}
	f.progress[key] = p
	if len(f.progress) <= maxProgress {
		return
	}
	for k := range f.progress { // any half goes: who tells again is remembered again
		if len(f.progress) <= maxProgress/2 {
			break
		}
		if k != key {
			delete(f.progress, k)
		}
	}
}

// Progress is the latest that a task of an agent (topic/name) has told; ok is false where it has told nothing lately.
func (f *Fleet) Progress(agent, task string) (p status.Progress, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok = f.progress[progressKey{agent, task}]
	return p, ok
}
