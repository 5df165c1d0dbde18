package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"regexp"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/reeve-run/reeve/internal/postgres"
	"github.com/reeve-run/reeve/services/registry/api"
	"github.com/reeve-run/reeve/services/registry/internal/agents"
)

// bad is a request that can't be carried out as it stands.
type bad struct {
	status         int
	code           string
	detail, remedy string
	faults         []api.FieldError
}

func (e *bad) Error() string { return e.detail }

func badRequest(code, remedy, format string, args ...any) error {
	return &bad{status: http.StatusBadRequest, code: code, detail: fmt.Sprintf(format, args...), remedy: remedy}
}

func notFound(what, remedy string) error {
	return &bad{status: http.StatusNotFound, code: "not_found", detail: what, remedy: remedy}
}

// problemOf is the one map from errors to problems.
func problemOf(err error) api.Problem {
	p := api.Problem{Status: http.StatusInternalServerError, Code: "internal", Detail: "the registry met an error that it did not expect; its log has it",
		Remediation: "try again; if it stays, report it with the registry's log"}
	var (
		request   *bad
		invalid   *agents.Invalid
		illegal   *agents.IllegalMove
		conflict  *agents.Conflict
		unreached *Unreached
		start     *agents.StartError
		tooLarge  *http.MaxBytesError
	)
	switch {
	case errors.As(err, &request):
		p = api.Problem{Status: request.status, Code: request.code, Detail: request.detail, Remediation: request.remedy, Errors: request.faults}
	case errors.As(err, &invalid):
		p = api.Problem{Status: http.StatusUnprocessableEntity, Code: "invalid_agent", Detail: invalid.Error(), ErrorType: "AgentConfigurationError",
			Remediation: "correct the fields in errors; nothing was changed"}
		for _, f := range invalid.Faults {
			p.Errors = append(p.Errors, api.FieldError{Field: f.Field, Message: f.Message})
		}
	case errors.As(err, &illegal):
		p = api.Problem{Status: http.StatusConflict, Code: "illegal_transition", Detail: illegal.Error(), Remediation: "do one of the legal moves first"}
		for _, v := range illegal.Legal {
			p.Legal = append(p.Legal, string(v))
		}
	case errors.As(err, &conflict):
		p = api.Problem{Status: http.StatusConflict, Code: conflict.Code, Detail: conflict.Message, Remediation: conflict.Remedy}
	case errors.Is(err, agents.ErrNotFound):
		p = api.Problem{Status: http.StatusNotFound, Code: "agent_not_found", Detail: "there is no such agent", ErrorType: "AgentNotFoundError",
			Remediation: "see GET /v1/agents for those there are"}
	case errors.Is(err, agents.ErrPrecondition):
		p = api.Problem{Status: http.StatusPreconditionFailed, Code: "precondition_failed", Detail: "the agent has changed since the ETag in If-Match",
			Remediation: "read the agent again and repeat the change if it still makes sense"}
	case errors.As(err, &tooLarge):
		p = api.Problem{Status: http.StatusRequestEntityTooLarge, Code: "too_large", Detail: fmt.Sprintf("the request has more than %d bytes", tooLarge.Limit),
			Remediation: "send less at once"}
	case errors.As(err, &unreached):
		p = api.Problem{Status: http.StatusServiceUnavailable, Code: "kafka_unavailable", Detail: unreached.Error(), Remediation: "see GET /health; try again when Kafka answers"}
	case errors.As(err, &start):
		p = api.Problem{Status: http.StatusServiceUnavailable, Code: "kafka_unavailable", Detail: start.Error(),
			Remediation: "try again when Kafka answers; without start the agent gets its topic from its beginning, and nobody has to ask"}
	case postgres.Down(err):
		p = api.Problem{Status: http.StatusServiceUnavailable, Code: "database_unavailable", Detail: "Postgres does not answer; events keep flowing meanwhile",
			Remediation: "see GET /health; try again when the database answers"}
	case errors.Is(err, context.Canceled):
		p = api.Problem{Status: 499, Code: "cancelled", Detail: "the client went away"}
	case errors.Is(err, context.DeadlineExceeded):
		p = api.Problem{Status: http.StatusServiceUnavailable, Code: "timeout", Detail: "the answer took too long", Remediation: "try again; see GET /health"}
	}
	p.Type = "urn:reeve:problem:" + p.Code
	if p.Title = http.StatusText(p.Status); p.Title == "" {
		p.Title = p.Code
	}
	return p
}

// Unreached says that Kafka couldn't be asked.
type Unreached struct{ Err error }

func (e *Unreached) Error() string { return "Kafka does not answer: " + e.Err.Error() }

// Unwrap gives the client's error.
func (e *Unreached) Unwrap() error { return e.Err }

// fail writes an error as a problem; what the caller can't have caused is logged.
func (s *Server) fail(c *gin.Context, err error) {
	p := problemOf(err)
	p.Instance = c.Request.URL.Path
	if topic, name := c.Param("topic"), c.Param("name"); errors.Is(err, agents.ErrNotFound) && name != "" {
		p.Detail = fmt.Sprintf("there is no agent %s/%s", topic, name)
	}
	if p.Status == http.StatusInternalServerError {
		s.Logger.Error("request failed", slog.String("method", c.Request.Method), slog.String("path", c.Request.URL.Path), slog.Any("error", err))
	}
	writeProblem(c, p)
}

func writeProblem(c *gin.Context, p api.Problem) {
	c.Header("Content-Type", "application/problem+json")
	c.Status(p.Status)
	c.Abort()
	if err := json.NewEncoder(c.Writer).Encode(p); err != nil {
		_ = c.Error(err) // the client went away
	}
}

// unreadable is a body or a parameter that doesn't parse.
func unreadable(err error) error {
	var (
		syntax   *json.SyntaxError
		kind     *json.UnmarshalTypeError
		tooLarge *http.MaxBytesError
	)
	switch {
	case errors.As(err, &tooLarge):
		return err
	case errors.As(err, &syntax):
		return badRequest("invalid_json", "send one JSON object", "the body is no JSON: %v at byte %d", syntax, syntax.Offset)
	case errors.As(err, &kind):
		e := &bad{status: http.StatusBadRequest, code: "invalid_request", remedy: "correct the fields in errors"}
		wrong := fmt.Sprintf("is a JSON %s: give %s", kind.Value, inJSON(kind.Type))
		if kind.Field == "" {
			return badRequest("invalid_request", "send one JSON object", "the body %s", wrong)
		}
		e.detail = kind.Field + ": " + wrong
		e.faults = []api.FieldError{{Field: kind.Field, Message: wrong}}
		return e
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return badRequest("invalid_json", "send one JSON object", "the body is empty or cut off")
	}
	if m := badParameter.FindStringSubmatch(err.Error()); m != nil {
		return unboundParameter(m[1], m[2])
	}
	return badRequest("invalid_request", "see /openapi.yaml for what the request takes", "%v", err)
}

var (
	badParameter = regexp.MustCompile(`^Invalid format for parameter ([\w-]+): (.*)$`)
	badValue     = regexp.MustCompile(`strconv\.Parse(\w+): parsing ("(?:[^"\\]|\\.)*"): (.*)$`)
)

// unboundParameter says in words what the generated code says of a parameter that it couldn't read.
func unboundParameter(name, why string) error {
	if m := badValue.FindStringSubmatch(why); m != nil {
		return wrongParameter(name, m[1], m[2], m[3])
	}
	for says, in := range map[string][2]string{
		"is required":                      {"%s is missing", "give it in the query"},
		"overflows destination":            {"%s is out of range", "give a smaller number"},
		"is empty, can't bind":             {"%s is empty in the path", "give one"},
		"multiple values for single value": {"%s is given more than once", "give it once"},
	} {
		if strings.Contains(why, says) {
			return badRequest("invalid_request", in[1], in[0], name)
		}
	}
	return badRequest("invalid_request", "see /openapi.yaml for what the request takes", "%s: %s", name, why)
}

// wrongParameter says in words what strconv says of a parameter's text.
func wrongParameter(name, kind, text, why string) error {
	if why == "value out of range" {
		return badRequest("invalid_request", "give a smaller number", "%s %s is out of range", name, text)
	}
	want := "a whole number"
	switch kind {
	case "Bool":
		want = "true or false"
	case "Float":
		want = "a number"
	}
	return badRequest("invalid_request", "give "+want, "%s is %s, which is not %s", name, text, want)
}

// inJSON names a type as JSON's readers do.
func inJSON(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.String:
		return "a text in quotes"
	case reflect.Map, reflect.Struct:
		return "an object of keys and values"
	}
	return "another kind of value"
}
