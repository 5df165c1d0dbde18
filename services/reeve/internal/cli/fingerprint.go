package cli

import (
	"context"
	"strings"

	"github.com/reeve-run/reeve/pkg/client"
)

// fingerprintLength is that of a whole fingerprint: eight bytes in hexadecimal.
const fingerprintLength = 16

// wholeFingerprint is the failure that a fingerprint's beginning means among an agent's open dead letters. A whole one is
// taken as it is, and so is "".
func wholeFingerprint(ctx context.Context, cl *client.ClientWithResponses, r ref, begins string) (string, error) {
	if begins == "" || len(begins) == fingerprintLength {
		return begins, nil
	}
	answer, err := cl.CountDeadLettersWithResponse(ctx, r.topic, r.name)
	if err != nil {
		return "", err
	}
	var meant []string
	for _, g := range answer.JSON200.Items {
		if g.Fingerprint != "" && strings.HasPrefix(g.Fingerprint, begins) {
			meant = append(meant, g.Fingerprint)
		}
	}
	switch len(meant) {
	case 0:
		return "", noSuchFailure(r, begins)
	case 1:
		return meant[0], nil
	}
	return "", usage("--fingerprint %s is the beginning of more than one failure's: %s", begins, strings.Join(meant, ", "))
}

func noSuchFailure(r ref, fingerprint string) error {
	return failure(NotFound, "%s has no open dead letter whose fingerprint is or begins with %s: `reeve dlq count %s` lists its failures", r, fingerprint, r)
}
