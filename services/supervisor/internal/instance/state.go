package instance

import "slices"

// State is where an instance stands in its life.
type State string

// The states, as they stand in records.
const (
	Idle       State = "IDLE"
	Starting   State = "STARTING"
	Running    State = "RUNNING"
	Stopping   State = "STOPPING"
	Stopped    State = "STOPPED"
	Crashed    State = "CRASHED"
	Restarting State = "RESTARTING"
)

// Next are the states that may follow. It is the whole of the state machine.
func (s State) Next() []State {
	switch s {
	case Idle:
		return []State{Starting, Stopped}
	case Starting:
		return []State{Running, Stopping, Crashed}
	case Running:
		return []State{Stopping, Crashed}
	case Stopping:
		return []State{Stopped}
	case Stopped:
		return []State{Starting}
	case Crashed:
		return []State{Restarting, Stopping}
	case Restarting:
		return []State{Starting, Stopping}
	}
	return nil
}

// May reports whether a state may follow.
func (s State) May(to State) bool { return slices.Contains(s.Next(), to) }
