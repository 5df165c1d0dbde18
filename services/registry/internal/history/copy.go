package history

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/jmoiron/sqlx"
)

const columns = `id, source_id, partition, "offset", attempt, redrives, status, outcome, at_partition, published_ms, dispatched_ms, started_ms,
	settled_ms, at_offset, version, runner, event_id, correlation_id, error_class, error_message, fingerprint`

const (
	maxMessage = 1024 // bytes of an error's message that a row keeps; all of it is on Kafka
	maxText    = 256  // of any other text
)

// lines builds the text of a COPY.
type lines []byte

func (b *lines) attempt(id int64, source int32, a *attempt) {
	out := *b
	for _, n := range [...]int64{id, int64(source), int64(a.partition), a.offset, int64(a.number), int64(a.redrives), int64(a.status), int64(a.outcome),
		int64(a.atPartition), a.published, a.dispatched, a.started, a.settled, a.atOffset} {
		out = append(strconv.AppendInt(out, n, 10), '\t')
	}
	out = append(appendText(out, a.version, maxText), '\t')
	out = append(appendText(out, a.runner, maxText), '\t')
	out = append(appendNullable(out, a.eventID, maxText), '\t')
	out = append(appendNullable(out, a.correlationID, maxText), '\t')
	out = append(appendNullable(out, a.errorClass, maxText), '\t')
	out = append(appendNullable(out, a.errorMessage, maxMessage), '\t')
	out = append(appendNullable(out, a.errorPrint, maxText), '\n')
	*b = out
}

func appendNullable(out, v []byte, limit int) []byte {
	if len(v) == 0 {
		return append(out, `\N`...)
	}
	return appendText(out, v, limit)
}

// appendText writes text as COPY wants it: escaped, valid UTF-8, without the zero byte that Postgres doesn't take.
func appendText(out, v []byte, limit int) []byte {
	if len(v) > limit {
		v = v[:limit]
	}
	if plain(v) {
		return append(out, v...)
	}
	for len(v) > 0 {
		r, size := utf8.DecodeRune(v)
		switch {
		case r == utf8.RuneError && size == 1:
			out = append(out, "\uFFFD"...)
		case r == 0:
		case r == '\\':
			out = append(out, `\\`...)
		case r == '\n':
			out = append(out, `\n`...)
		case r == '\r':
			out = append(out, `\r`...)
		case r == '\t':
			out = append(out, `\t`...)
		default:
			out = append(out, v[:size]...)
		}
		v = v[size:]
	}
	return out
}

// asText is text as it comes back once appendText has had it copied in, of whatever length.
func asText(v []byte) string {
	var out strings.Builder
	for len(v) > 0 {
		r, size := utf8.DecodeRune(v)
		if r != 0 {
			_, _ = out.WriteRune(r) // a byte that is no UTF-8 is the rune U+FFFD
		}
		v = v[size:]
	}
	return out.String()
}

func plain(v []byte) bool {
	for _, c := range v {
		if c < ' ' || c == '\\' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// copier is what the driver's COPY statement can do beyond database/sql.
type copier interface {
	driver.Stmt
	CopyData(ctx context.Context, line string) (driver.Result, error)
}

// copyIn sends lines into attempts on a connection that has a transaction open.
func copyIn(ctx context.Context, conn *sqlx.Conn, text lines) error {
	return conn.Raw(func(c any) (err error) {
		dc, ok := c.(driver.ConnPrepareContext)
		if !ok {
			return errors.New("copy attempts: the driver can't prepare statements")
		}
		stmt, err := dc.PrepareContext(ctx, `COPY attempts (`+columns+`) FROM STDIN`)
		if err != nil {
			return fmt.Errorf("copy attempts: %w", err)
		}
		in, ok := stmt.(copier)
		if !ok {
			return errors.New("copy attempts: the driver can't copy")
		}
		_, err = in.CopyData(ctx, string(text[:len(text)-1])) // CopyData adds the last line's end
		return errors.Join(err, in.Close())
	})
}
