package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/lib/pq"
)

// What a broken connection looks like through database/sql.
var (
	errBadConn       = driver.ErrBadConn
	errEOF           = io.EOF
	errUnexpectedEOF = io.ErrUnexpectedEOF
	errConnDone      = sql.ErrConnDone
)

// dialer bounds every dial, so that a host which swallows packets can't hold a request.
type dialer struct{ net.Dialer }

func (d dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

func (d dialer) DialTimeout(network, address string, limit time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

func openDB(c driver.Connector) *sql.DB { return sql.OpenDB(c) }

func connectorFor(databaseURL string) (driver.Connector, string, error) {
	at, err := where(databaseURL)
	if err != nil {
		return nil, "", err
	}
	c, err := pq.NewConnector(databaseURL)
	if err != nil {
		return nil, "", fmt.Errorf("read REEVE_DATABASE_URL: %w", errors.New("it is no Postgres URL: write postgres://user:password@host:5432/database"))
	}
	c.Dialer(dialer{net.Dialer{Timeout: dialLimit, KeepAlive: 15 * time.Second}})
	return c, at, nil
}
