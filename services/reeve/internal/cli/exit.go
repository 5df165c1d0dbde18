package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/reeve-run/reeve/pkg/client"
)

// Exit codes.
const (
	Done        = 0
	Failed      = 1
	Usage       = 2
	NotFound    = 3
	Conflict    = 4
	Unreachable = 5
)

// coded is an error that asks for an exit code.
type coded struct {
	code int
	err  error
}

func (e *coded) Error() string { return e.err.Error() }
func (e *coded) Unwrap() error { return e.err }
func (e *coded) ExitCode() int { return e.code }

// usage is an error of the command line.
func usage(format string, args ...any) error { return &coded{Usage, fmt.Errorf(format, args...)} }

// Usagef is an error of the command line, for commands that live elsewhere.
func Usagef(format string, args ...any) error { return usage(format, args...) }

// failure is an error of what was asked for.
func failure(code int, format string, args ...any) error {
	return &coded{code, fmt.Errorf(format, args...)}
}

// silent ends a command with a code after it has said all itself.
type silent int

// Silent ends a command with an exit code after it has said all itself; nil for 0.
func Silent(code int) error {
	if code == Done {
		return nil
	}
	return silent(code)
}

func (s silent) Error() string { return fmt.Sprintf("exit code %d", int(s)) }

// exitCode is the one map from errors to exit codes.
func exitCode(err error) int {
	var quiet silent
	var code interface{ ExitCode() int }
	var problem *client.ProblemError
	var unreachable *client.UnreachableError
	switch {
	case err == nil:
		return Done
	case errors.As(err, &quiet):
		return int(quiet)
	case errors.As(err, &code):
		return code.ExitCode()
	case errors.As(err, &unreachable):
		return Unreachable
	case errors.As(err, &problem):
		return problemCode(problem)
	case errors.Is(err, context.Canceled):
		return Failed
	}
	return Failed
}

func problemCode(p *client.ProblemError) int {
	if p.Status == http.StatusNotFound && (p.Code == "route_not_found" || p.Code == "unexpected_answer") {
		return Failed // it isn't what was asked for that is missing, but whom to ask
	}
	switch p.Status {
	case http.StatusBadRequest:
		if p.Code == "invalid_request" {
			return Usage
		}
	case http.StatusNotFound:
		return NotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		return Conflict
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return Unreachable
	}
	return Failed
}
