package worker

import (
	"context"
	"encoding/base64"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/topics"
)

// Remembered reports, by an error, why an engine must not be started for an agent yet: its work group had positions on the
// task topic with this id, and Kafka has forgotten them. The error is a *hop.ForgottenError where that is the reason.
func Remembered(ctx context.Context, cl *kgo.Client, names topics.Names, a *spec.Agent, tasks [16]byte) error {
	if a.Kept.Tasks == "" || a.Kept.Tasks != base64.RawURLEncoding.EncodeToString(tasks[:]) {
		return nil
	}
	group := names.WorkGroup(a.Topic, a.Name)
	forgotten, err := hop.Forgotten(ctx, cl, group, names.Tasks(a.Topic, a.Name))
	if err != nil || !forgotten {
		return err
	}
	return &hop.ForgottenError{Group: group}
}
