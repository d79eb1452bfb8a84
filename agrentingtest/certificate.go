package agrentingtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"time"
)

// certificate is a self-signed certificate and its key. Each server makes its
// own, so no key is worth stealing.
type certificate struct {
	pair tls.Certificate
	leaf *x509.Certificate
}

func newCertificate(hostport string) *certificate {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		panic(fmt.Sprintf("agrentingtest: address %q: %v", hostport, err))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(fmt.Sprintf("agrentingtest: make a TLS key: %v", err))
	}
	now := time.Now() // relative to now, because a bubble starts in the year 2000
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		Subject:               pkix.Name{Organization: []string{"agrentingtest"}},
		NotBefore:             now.Add(-24 * time.Hour),
		NotAfter:              now.AddDate(10, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		DNSNames:              []string{"localhost", "example.com"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = append(template.IPAddresses, ip)
	} else if host != "" {
		template.DNSNames = append(template.DNSNames, host)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(fmt.Sprintf("agrentingtest: make a TLS certificate: %v", err))
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(fmt.Sprintf("agrentingtest: read back the TLS certificate: %v", err))
	}
	return &certificate{
		pair: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf},
		leaf: leaf,
	}
}

func (c *certificate) serverConfig() *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{c.pair},
		NextProtos:   []string{"h2", "http/1.1"},
		MinVersion:   tls.VersionTLS12,
	}
}

func (c *certificate) clientConfig() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(c.leaf)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}
