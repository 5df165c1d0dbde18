package security

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestABrokerThatIsDownIsNotToldWithEveryTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := Config{}.Log(slog.New(slog.NewTextHandler(&out, nil)))
		refused := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
		for range 2 * 31 { // half a minute and a second of two tries a second
			for _, addr := range []string{"k1:9092", "k2:9092"} {
				log.Log(kgo.LogLevelWarn, "unable to open connection to broker", "addr", addr, "broker", "seed_0", "err", refused)
			}
			<-time.After(500 * time.Millisecond)
		}
		for _, addr := range []string{"k1:9092", "k2:9092"} {
			if n := strings.Count(out.String(), addr); n != 2 {
				t.Errorf("%s is told %d times, want 2", addr, n)
			}
		}
		out.Reset()
		for range 2 {
			log.Log(kgo.LogLevelWarn, "something else", "broker", "1", "err", errors.New("x"))
		}
		if n := strings.Count(out.String(), "something else"); n != 2 {
			t.Errorf("another warning is told %d times, want 2", n)
		}
	})
}
