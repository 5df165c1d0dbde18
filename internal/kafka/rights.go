package kafka

import (
	"fmt"
	"log/slog"
	"sync"

	"github.com/reeve-run/reeve/pkg/security"
)

// Remedy says what a person can do where an error is about a missing right, or about TLS or SASL; "" elsewhere.
func Remedy(err error) string {
	p, _ := security.Config{}.Diagnose(err)
	return p.Remedy
}

// Explained adds what was done and, where there is one, the remedy to an error; nil for nil.
func Explained(what string, err error) error {
	if err == nil {
		return nil
	}
	if remedy := Remedy(err); remedy != "" {
		return fmt.Errorf("%s: %w: %s", what, err, remedy)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Tolerance is for rights that a process can do without: it goes on, and says once what that means. It is safe for
// concurrent use.
type Tolerance struct {
	Logger *slog.Logger

	mu   sync.Mutex
	told map[string]bool
}

// Accept gives nil where the broker refused something for want of a right, and the error otherwise. What was refused and
// what follows of it is logged the first time; after a success, which is a nil error, it would be news again.
func (t *Tolerance) Accept(what, consequence string, err error) error {
	denied := security.Denied(err)
	t.mu.Lock()
	known := t.told[what]
	if t.told == nil {
		t.told = map[string]bool{}
	}
	t.told[what] = denied
	t.mu.Unlock()
	if !denied {
		return err
	}
	if !known {
		t.Logger.Warn("Kafka's ACLs don't let this process "+what+": "+consequence, slog.String("remedy", Remedy(err)), slog.Any("error", err))
	}
	return nil
}
