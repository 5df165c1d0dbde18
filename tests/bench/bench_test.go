package bench

import (
	"strings"
	"testing"
)

func TestAContestantThatThereIsNotIsRefused(t *testing.T) {
	err := Run(t.Context(), Config{Only: "nobody"})
	if err == nil || !strings.Contains(err.Error(), "nobody") || !strings.Contains(err.Error(), "Reeve, in-process") {
		t.Error(err)
	}
}
