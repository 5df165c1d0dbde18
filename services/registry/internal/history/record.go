package history

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/task"
)

// attempt is an outcome record, read from its headers. The bytes are the record's own.
type attempt struct {
	agent     []byte // topic/name
	topicID   []byte
	version   []byte
	partition int32
	offset    int64
	number    int32
	redrives  int32
	outcome   int16
	status    int16

	published, dispatched, started, settled int64 // Unix milliseconds

	runner, eventID, correlationID       []byte
	errorClass, errorMessage, errorPrint []byte
	settledAs                            []byte
	atPartition                          int32
	atOffset                             int64
}

var errNotOutcome = errors.New("it lacks reeve-agent, reeve-origin or reeve-outcome")

// read reads an outcome record. It allocates nothing but errors.
func (a *attempt) read(r *kgo.Record) error {
	*a = attempt{number: 0, atPartition: r.Partition, atOffset: r.Offset, settled: r.Timestamp.UnixMilli()}
	var origin, outcome []byte
	for i := range r.Headers {
		v := r.Headers[i].Value
		switch r.Headers[i].Key {
		case task.HeaderAgent:
			a.agent = v
		case task.HeaderOrigin:
			origin = v
		case task.HeaderAttempt:
			a.number = int32(number(v))
		case task.HeaderOutcome:
			outcome = v
		case task.HeaderSettled:
			a.settledAs = v
		case task.HeaderRedrives:
			a.redrives = int32(number(v))
		case task.HeaderVersion:
			a.version = v
		case task.HeaderEvent:
			_, a.eventID, _ = bytes.Cut(v, space)
		case task.HeaderTimes:
			a.times(v)
		case task.HeaderRunner:
			a.runner = v
		case task.HeaderCorrelationID:
			a.correlationID = v
		case task.HeaderErrorClass:
			a.errorClass = v
		case task.HeaderErrorMessage:
			a.errorMessage = v
		case task.HeaderErrorFingerprint:
			a.errorPrint = v
		}
	}
	if len(a.agent) == 0 || len(origin) == 0 || len(outcome) == 0 || bytes.IndexByte(a.agent, '/') < 1 {
		return errNotOutcome
	}
	a.outcome = outcomeNumber(outcome)
	a.status = judge(a.outcome, a.settledAs)
	return a.origin(origin)
}

var space = []byte{' '}

// origin takes topic/partition/offset/uuid apart. The topic is the agent's own.
func (a *attempt) origin(v []byte) error {
	topicEnd := bytes.IndexByte(v, '/')
	if topicEnd < 1 {
		return fmt.Errorf("its origin %q is no topic/partition/offset", v)
	}
	rest := v[topicEnd+1:]
	slash := bytes.IndexByte(rest, '/')
	if slash < 1 {
		return fmt.Errorf("its origin %q is no topic/partition/offset", v)
	}
	partition, offset := rest[:slash], rest[slash+1:]
	if i := bytes.IndexByte(offset, '/'); i >= 0 {
		offset, a.topicID = offset[:i], offset[i+1:]
	}
	if !digits(partition, 9) || !digits(offset, 18) {
		return fmt.Errorf("its origin %q is no topic/partition/offset", v)
	}
	a.partition, a.offset = int32(number(partition)), number(offset)
	return nil
}

// digits reports whether v is a number of at most so many decimal digits.
func digits(v []byte, most int) bool {
	if len(v) == 0 || len(v) > most {
		return false
	}
	for _, c := range v {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// times takes "<published> <dispatched> <started> <ended>" apart.
func (a *attempt) times(v []byte) {
	var at [4]int64
	for i := range at {
		var part []byte
		part, v, _ = bytes.Cut(v, space)
		at[i] = number(part)
	}
	a.published, a.dispatched, a.started = at[0], at[1], at[2]
}

// final reports whether the attempt finishes the task.
func (a *attempt) final() bool { return a.status != retrying }

// number reads decimal digits; anything else ends it.
func number(v []byte) int64 {
	var n int64
	for _, c := range v {
		if c < '0' || c > '9' || n > 1<<58 {
			break
		}
		n = n*10 + int64(c-'0')
	}
	return n
}
