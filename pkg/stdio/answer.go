package stdio

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/reeve-run/reeve/pkg/jsonlex"
	"github.com/reeve-run/reeve/pkg/task"
)

// ErrNoAnswer says that a line holds no answer: it is the agent's output.
var ErrNoAnswer = errors.New("the line is no answer")

// Answer is what an agent says of a task or a ping.
type Answer struct {
	// ID is the message's; HasID is false where it is null, missing or none that this package gave.
	ID    uint64
	HasID bool
	// OK is true for a result, which is JSON then, and nil where there was none.
	OK     bool
	Result []byte // it may be a part of the line
	// The others tell of an error. Message may be empty.
	Message    string
	Class      task.Class
	Type       string
	Traceback  string
	RetryAfter time.Duration
	// Kind is the answer's own "type": StartupError, else unused by the base. With KindProgress and KindPublish it is no
	// answer but a message about a task that runs: Result is the whole of it, and the other fields are empty.
	Kind string
}

// StartupError is the Kind with which Reeve's adapters say why they can't start their agent, before they exit.
const StartupError = "startup_error"

// maxTries bounds how often an answer is looked for in a line that begins with something else.
const maxTries = 16

// ParseAnswer reads an answer from a line. prefix is the output that stood before it, if any. The error is ErrNoAnswer.
func ParseAnswer(line []byte) (a Answer, prefix []byte, err error) {
	if err := a.parse(line); err == nil {
		return a, nil, nil
	}
	from := 1
	for range maxTries {
		i := -1
		if from < len(line) {
			i = bytes.Index(line[from:], []byte(`{"`))
		}
		if i < 0 {
			break
		}
		from += i
		if a.parse(line[from:]) == nil {
			return a, line[:from], nil
		}
		from++
	}
	return Answer{}, nil, ErrNoAnswer
}

// answerFields are the members of an answer as they stand on the line.
type answerFields struct {
	id, kind, status, result, message, class, typ, traceback, retryAfter []byte

	odd bool // result has a number that JSON doesn't know
}

// isAnswer tells an answer from an object that the agent logs, which may well have an id.
func (f *answerFields) isAnswer() bool {
	return f.isMessage() || f.status != nil || f.id != nil && (f.result != nil || f.message != nil)
}

// isMessage tells a message about a task that runs.
func (f *answerFields) isMessage() bool {
	kind := text(f.kind)
	return f.id != nil && f.status == nil && (kind == KindProgress || kind == KindPublish)
}

func (a *Answer) parse(line []byte) error {
	var f answerFields
	var s scanner
	end := s.object(line, jsonlex.Space(line, 0), func(key, value []byte, odd bool) { f.set(key, value, odd) })
	if end < 0 || jsonlex.Space(line, end) != len(line) || !f.isAnswer() {
		return ErrNoAnswer
	}
	*a = Answer{Kind: text(f.kind)}
	a.ID, a.HasID = number(f.id)
	if f.isMessage() {
		a.Result = line
		return nil
	}
	switch status := text(f.status); status {
	case "ok":
		a.OK = true
		a.Result = f.cleanResult()
	case "error":
		f.fail(a)
	default:
		a.Class = task.ClassInternal
		a.Message = `the agent's answer has the status "` + status + `": it must be "ok" or "error"`
	}
	return nil
}

func (f *answerFields) set(key, value []byte, odd bool) {
	switch string(key) {
	case "id":
		f.id = value
	case "type":
		f.kind = value
	case "status":
		f.status = value
	case "result":
		f.result, f.odd = value, odd
	case "error":
		f.message = value
	case "error_class":
		f.class = value
	case "error_type":
		f.typ = value
	case "traceback":
		f.traceback = value
	case "retry_after":
		f.retryAfter = value
	}
}

func (f *answerFields) cleanResult() []byte {
	r := f.result
	if f.odd {
		r = finite(r)
	}
	if !utf8.Valid(r) {
		r = bytes.ToValidUTF8(r, []byte("\uFFFD"))
	}
	return r
}

func (f *answerFields) fail(a *Answer) {
	a.Message = text(f.message)
	a.Class = task.Class(text(f.class))
	a.Type = text(f.typ)
	a.Traceback = text(f.traceback)
	a.RetryAfter = seconds(f.retryAfter)
}

// number reads an id, as a string or bare.
func number(v []byte) (uint64, bool) {
	if n := len(v); n >= 2 && v[0] == '"' {
		v = v[1 : n-1]
	}
	if len(v) == 0 || len(v) > 19 {
		return 0, false
	}
	var n uint64
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}

// text gives the text of a string; of any other value its JSON, of null and nothing "".
func text(v []byte) string {
	switch {
	case len(v) == 0 || string(v) == "null":
		return ""
	case v[0] != '"':
		return strings.ToValidUTF8(string(v), "\uFFFD")
	case bytes.IndexByte(v, '\\') < 0:
		return strings.ToValidUTF8(string(v[1:len(v)-1]), "\uFFFD")
	}
	var s string
	if json.Unmarshal(v, &s) != nil {
		return ""
	}
	return s
}

// maxRetryAfter bounds what an agent may ask for.
const maxRetryAfter = 24 * time.Hour

// seconds reads a number of seconds, also one in a string; what is none, or negative, is 0.
func seconds(v []byte) time.Duration {
	f, err := strconv.ParseFloat(strings.Trim(string(v), `"`), 64)
	if err != nil || math.IsNaN(f) || f <= 0 {
		return 0
	}
	return time.Duration(min(f, maxRetryAfter.Seconds()) * float64(time.Second))
}

// ParseTruncated reads the id from the beginning of an answer that was too long to keep; ok is false where it can't be
// recognized.
func ParseTruncated(head []byte) (id uint64, ok bool) {
	const key = `"id"`
	i := bytes.Index(head, []byte(key))
	if i < 0 {
		return 0, false
	}
	i = jsonlex.Space(head, i+len(key))
	if i >= len(head) || head[i] != ':' {
		return 0, false
	}
	i = jsonlex.Space(head, i+1)
	end := i
	for end < len(head) && head[end] != ',' && head[end] != '}' && head[end] != ' ' {
		end++
	}
	return number(head[i:end])
}

// ParseBroken reads the id of a line that begins like an answer and isn't JSON; ok is false for any other line.
func ParseBroken(line []byte) (id uint64, ok bool) {
	const begin = `{"id"`
	line = line[jsonlex.Space(line, 0):]
	if !bytes.HasPrefix(line, []byte(begin)) || !bytes.Contains(line, []byte(`"status"`)) {
		return 0, false
	}
	return ParseTruncated(line[:min(len(line), headKept)])
}
