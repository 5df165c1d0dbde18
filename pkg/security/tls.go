package security

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"
)

// A FileError says what is wrong with a file that a variable names.
type FileError struct {
	Variable, Path string
	What           string // what is wrong, and what to do
}

func (e *FileError) Error() string { return fmt.Sprintf("%s: %s %s", e.Variable, e.Path, e.What) }

func readFile(variable, path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		return b, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, &FileError{variable, path, "isn't there: give the path of a PEM file"}
	case errors.Is(err, fs.ErrPermission):
		return nil, &FileError{variable, path, "may not be read by this user: change its owner or its mode"}
	}
	return nil, &FileError{variable, path, fmt.Sprintf("can't be read: %v", err)}
}

// certificates reads the certificates of a PEM file.
func certificates(variable, path string) ([]*x509.Certificate, error) {
	rest, err := readFile(variable, path)
	if err != nil {
		return nil, err
	}
	var found []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, &FileError{variable, path, fmt.Sprintf("holds a certificate that can't be read (%v): make the file anew", err)}
		}
		found = append(found, cert)
	}
	if len(found) == 0 {
		return nil, &FileError{variable, path, "holds no PEM certificate (-----BEGIN CERTIFICATE-----): convert it, as by openssl x509 -inform der"}
	}
	return found, nil
}

// authorities are what brokers' certificates are checked against; nil stands for the machine's own.
func (c Config) authorities(now time.Time) (*x509.CertPool, error) {
	if c.TLSCA == "" || c.TLSCA == SystemCA {
		return nil, nil
	}
	certs, err := certificates(EnvTLSCA, c.TLSCA)
	if err != nil {
		return nil, err
	}
	pool, valid := x509.NewCertPool(), false
	for _, cert := range certs {
		pool.AddCert(cert)
		valid = valid || untimely(cert, now) == ""
	}
	if !valid { // a bundle may hold old ones beside the one that counts
		return nil, &FileError{EnvTLSCA, c.TLSCA, untimely(certs[0], now) + ": get the authority's present certificate"}
	}
	return pool, nil
}

// certificate is the client's own.
func (c Config) certificate(now time.Time) (*tls.Certificate, error) {
	certs, err := certificates(EnvTLSCert, c.TLSCert)
	if err != nil {
		return nil, err
	}
	if why := untimely(certs[0], now); why != "" {
		return nil, &FileError{EnvTLSCert, c.TLSCert, why + ": get another one"}
	}
	key, err := readFile(EnvTLSKey, c.TLSKey)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(key)
	switch {
	case block == nil:
		return nil, &FileError{EnvTLSKey, c.TLSKey, "holds no PEM key (-----BEGIN PRIVATE KEY-----)"}
	case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
		return nil, &FileError{EnvTLSKey, c.TLSKey, "is encrypted: write it without a passphrase, as by openssl pkey, readable by this user alone"}
	}
	b, err := os.ReadFile(c.TLSCert)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(b, key)
	if err != nil {
		return nil, &FileError{EnvTLSKey, c.TLSKey, fmt.Sprintf("is no key of the certificate %s (%v): give the two that belong together", c.TLSCert, err)}
	}
	return &pair, nil
}

// untimely says that a certificate doesn't hold at a time, "" if it does.
func untimely(cert *x509.Certificate, now time.Time) string {
	name := cert.Subject.CommonName
	if name == "" {
		name = cert.Subject.String()
	}
	switch {
	case now.After(cert.NotAfter):
		return fmt.Sprintf("holds the certificate of %q, which expired on %s", name, cert.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(cert.NotBefore):
		return fmt.Sprintf("holds the certificate of %q, which is valid only from %s: look at this machine's clock", name, cert.NotBefore.UTC().Format(time.RFC3339))
	}
	return ""
}

// cache keeps what was read from files until they change.
type cache struct {
	of Config

	mu     sync.Mutex
	stamps [3]stamp
	tls    *tls.Config
	until  time.Time // when one of the certificates expires
}

// stamp tells whether a file has changed.
type stamp struct {
	size    int64
	changed time.Time
}

func newCache(c Config) *cache { return &cache{of: c} }

func (c *cache) config(now time.Time) (*tls.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var stamps [3]stamp
	for i, path := range []string{c.of.TLSCA, c.of.TLSCert, c.of.TLSKey} {
		if st, err := os.Stat(path); err == nil {
			stamps[i] = stamp{st.Size(), st.ModTime()}
		}
	}
	if c.tls != nil && stamps == c.stamps && now.Before(c.until) {
		return c.tls.Clone(), nil
	}
	pool, err := c.of.authorities(now)
	if err != nil {
		return nil, err
	}
	made := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	until := now.Add(time.Hour)
	if c.of.TLSCert != "" {
		pair, err := c.of.certificate(now)
		if err != nil {
			return nil, err
		}
		made.Certificates = []tls.Certificate{*pair}
		if pair.Leaf != nil && pair.Leaf.NotAfter.Before(until) {
			until = pair.Leaf.NotAfter
		}
	}
	c.stamps, c.tls, c.until = stamps, made, until
	return made.Clone(), nil
}
