package postgres

import (
	"context"
	"database/sql/driver"
	"net"
	"time"

	"github.com/lib/pq"
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

// connectorFor reads the URL, and gives the part of it that may be shown.
func connectorFor(databaseURL string) (driver.Connector, string, error) {
	at, err := where(databaseURL)
	if err != nil {
		return nil, "", err
	}
	c, err := pq.NewConnector(databaseURL)
	if err != nil {
		return nil, "", errURL // the driver's error may quote the URL
	}
	c.Dialer(dialer{net.Dialer{Timeout: dialLimit, KeepAlive: 15 * time.Second}})
	return c, at, nil
}
