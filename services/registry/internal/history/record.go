package history

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/task"
	"github.com/reeve-run/reeve/services/registry/internal/projection"
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
	order                                []byte // that opened its round
	atPartition                          int32
	atOffset                             int64
}

var errNotOutcome = errors.New("it lacks reeve-agent, reeve-origin or reeve-outcome")

// Places of the headers that an attempt is read from.
const (
	atAgent = iota
	atOrigin
	atAttempt
	atOutcome
	atSettled
	atRedrives
	atVersion
	atEvent
	atTimes
	atRunner
	atCorrelationID
	atErrorClass
	atErrorMessage
	atErrorPrint
	atOrder
)

// headerKeys are their keys.
func headerKeys() []string {
	return []string{
		atAgent: task.HeaderAgent, atOrigin: task.HeaderOrigin, atAttempt: task.HeaderAttempt, atOutcome: task.HeaderOutcome, atSettled: task.HeaderSettled,
		atRedrives: task.HeaderRedrives, atVersion: task.HeaderVersion, atEvent: task.HeaderEvent, atTimes: task.HeaderTimes, atRunner: task.HeaderRunner,
		atCorrelationID: task.HeaderCorrelationID, atErrorClass: task.HeaderErrorClass, atErrorMessage: task.HeaderErrorMessage, atErrorPrint: task.HeaderErrorFingerprint,
		atOrder: task.HeaderOrder,
	}
}

// read reads an outcome record, given headerKeys. It allocates nothing but errors.
func (a *attempt) read(r *kgo.Record, keys []string) error {
	*a = attempt{number: 0, atPartition: r.Partition, atOffset: r.Offset, settled: r.Timestamp.UnixMilli()}
	var origin, outcome, settledAs []byte
	headers := projection.HeadersOf(r, keys)
	for key, v, ok := headers.Next(); ok; key, v, ok = headers.Next() {
		switch key {
		case atAgent:
			a.agent = v
		case atOrigin:
			origin = v
		case atAttempt:
			a.number = int32(number(v))
		case atOutcome:
			outcome = v
		case atSettled:
			settledAs = v
		case atRedrives:
			a.redrives = int32(number(v))
		case atVersion:
			a.version = v
		case atEvent:
			_, a.eventID, _ = bytes.Cut(v, space)
		case atTimes:
			a.times(v)
		case atRunner:
			a.runner = v
		case atCorrelationID:
			a.correlationID = v
		case atErrorClass:
			a.errorClass = v
		case atErrorMessage:
			a.errorMessage = v
		case atErrorPrint:
			a.errorPrint = v
		case atOrder:
			a.order = v
		}
	}
	if len(a.agent) == 0 || len(origin) == 0 || len(outcome) == 0 || bytes.IndexByte(a.agent, '/') < 1 {
		return errNotOutcome
	}
	a.outcome = outcomeNumber(outcome)
	a.status = judge(a.outcome, settledAs)
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
