package security

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// sayAgain is how often a client's trouble with security or with reaching a broker is told again while it lasts.
const sayAgain = 30 * time.Second

// Log is a logger for Kafka clients, which may share it: it passes their own warnings and errors on. What has to do with
// security comes with its remedy; that and a broker that can't be connected to isn't told with every try.
func (c Config) Log(logger *slog.Logger) kgo.Logger {
	return &clientLog{logger: logger, security: c, said: map[string]time.Time{}}
}

type clientLog struct {
	logger   *slog.Logger
	security Config

	mu   sync.Mutex
	said map[string]time.Time
}

func (*clientLog) Level() kgo.LogLevel { return kgo.LogLevelWarn }

func (l *clientLog) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	to := slog.LevelWarn
	if level == kgo.LogLevelError {
		to = slog.LevelError
	}
	for _, v := range keyvals {
		err, ok := v.(error)
		if !ok {
			continue
		}
		if problem, ok := l.security.Diagnose(err); ok && !problem.Guess {
			if !l.recently(problem.What) {
				l.logger.Error("kafka client: "+problem.What, append([]any{slog.String("remedy", problem.Remedy)}, keyvals...)...)
			}
			return
		}
	}
	if broker, ok := unreached(keyvals); ok && l.recently(msg+" "+broker) {
		return // a client that nobody answers tries twice a second
	}
	l.logger.Log(context.Background(), to, "kafka client: "+msg, keyvals...)
}

// unreached names the broker that a message says couldn't be connected to.
func unreached(keyvals []any) (broker string, ok bool) {
	for i := 0; i+1 < len(keyvals); i += 2 {
		switch value := keyvals[i+1].(type) {
		case error:
			var op *net.OpError
			ok = ok || errors.As(value, &op) && op.Op == "dial"
		default:
			if key := fmt.Sprint(keyvals[i]); key == "addr" || key == "broker" {
				broker += fmt.Sprint(value) + " "
			}
		}
	}
	return broker, ok
}

func (l *clientLog) recently(what string) bool {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, ok := l.said[what]; ok && now.Sub(at) < sayAgain {
		return true
	}
	l.said[what] = now
	return false
}
