package doctor

import (
	"fmt"
	"log/slog"
	"slices"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/kafka"
)

// Status is what a check came to.
type Status string

// Statuses. What is skipped couldn't be looked at because of something that is said elsewhere.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
	Skip Status = "skip"
)

// Check is one step of an examination.
type Check struct {
	Name   string `json:"check"`
	Status Status `json:"status"`
	Detail string `json:"detail,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

// Examination collects checks. Its fields say of what; Report is called for each check as it is made.
type Examination struct {
	Config       config.Config
	Installation kafka.Installation
	// Services are those whose needs are looked at.
	Services []string
	Report   func(Check)

	checks []Check
}

// Checks are those made so far.
func (e *Examination) Checks() []Check { return e.checks }

// Failed reports whether one failed.
func (e *Examination) Failed() bool {
	return slices.ContainsFunc(e.checks, func(c Check) bool { return c.Status == Fail })
}

// Add adds a check that was made elsewhere.
func (e *Examination) Add(c Check) {
	e.checks = append(e.checks, c)
	if e.Report != nil {
		e.Report(c)
	}
}

func (e *Examination) ok(name, format string, args ...any) {
	e.Add(Check{Name: name, Status: OK, Detail: fmt.Sprintf(format, args...)})
}

func (e *Examination) fail(name, remedy, format string, args ...any) {
	e.Add(Check{Name: name, Status: Fail, Detail: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (e *Examination) warn(name, remedy, format string, args ...any) {
	e.Add(Check{Name: name, Status: Warn, Detail: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (e *Examination) skip(name, format string, args ...any) {
	e.Add(Check{Name: name, Status: Skip, Detail: fmt.Sprintf(format, args...)})
}

// concerns reports whether one of the services is looked at.
func (e *Examination) concerns(services ...string) bool {
	return slices.ContainsFunc(services, func(s string) bool { return slices.Contains(e.Services, s) })
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
