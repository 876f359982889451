package kafka

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Every way to log in works, also over TLS with a client certificate's place filled;
// a wrong password and an unknown broker say what is wrong.
func TestSASLAndTLS(t *testing.T) {
	dir := t.TempDir()
	server, ca := certificate(t, dir)
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			broker, err := StartLocal(LocalConfig{Options: []kfake.Opt{
				kfake.EnableSASL(), kfake.Superuser(mechanism, "shop", "secret"), kfake.TLS(server),
			}})
			if err != nil {
				t.Fatal(err)
			}
			defer broker.Close()
			conf := Config{
				Brokers: []string{broker.Addr()},
				TLS:     &TLS{CAFile: ca, ServerName: "localhost"},
				SASL:    &SASL{Mechanism: mechanism, User: "shop", Password: "secret"},
			}
			if err := ping(t, conf); err != nil {
				t.Errorf("right password: %v", err)
			}
			conf.SASL.Password = "wrong"
			if err := ping(t, conf); err == nil || !strings.Contains(err.Error(), "check the address, TLS and SASL") {
				t.Errorf("wrong password: got %v", err)
			}
		})
	}
}

func ping(t *testing.T, conf Config) error {
	t.Helper()
	opts, err := Options(conf)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return reachable(ctx, cl, conf.Brokers)
}

// certificate makes a self-signed one for localhost, in ca.pem and key.pem, and returns a
// server's configuration and the file a client is to trust.
func certificate(t *testing.T, dir string) (*tls.Config, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}, file
}

// A client certificate that is renewed is the one that the next connection shows.
func TestClientCertificateIsRenewed(t *testing.T) {
	dir := t.TempDir()
	of := &TLS{CertFile: filepath.Join(dir, "ca.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	var conf *tls.Config
	for range 2 {
		want, _ := certificate(t, dir)
		if conf == nil {
			var err error
			if conf, err = of.config(); err != nil {
				t.Fatal(err)
			}
		}
		got, err := conf.GetClientCertificate(&tls.CertificateRequestInfo{})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Certificate[0], want.Certificates[0].Certificate[0]) {
			t.Error("it shows an old one")
		}
	}
	if err := os.Remove(of.KeyFile); err != nil {
		t.Fatal(err)
	}
	if _, err := conf.GetClientCertificate(&tls.CertificateRequestInfo{}); err == nil || !strings.Contains(err.Error(), "client certificate") {
		t.Errorf("without its key: got %v", err)
	}
}

// A bad configuration is told in full, before anything is dialled.
func TestConfigRefuses(t *testing.T) {
	_, err := New(t.Context(), Config{RevokeLimit: time.Hour, TickInterval: -1})
	for _, want := range []string{"brokers are missing", "group is missing", "instance is missing", "topic is missing", "Now is missing", "below the rebalance timeout", "negative duration"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %q", err, want)
		}
	}
	for want, conf := range map[string]Config{
		"unknown mechanism \"GSSAPI\"":  {SASL: &SASL{Mechanism: "GSSAPI", User: "u"}},
		"user is missing":               {SASL: &SASL{Mechanism: "PLAIN"}},
		"no such file":                  {TLS: &TLS{CAFile: filepath.Join(t.TempDir(), "none")}},
		"both its file and its key's":   {TLS: &TLS{CertFile: "c.pem"}},
		"has no certificate":            {TLS: &TLS{CAFile: os.DevNull}},
		"client certificate: open none": {TLS: &TLS{CertFile: "none", KeyFile: "none"}},
	} {
		conf.Brokers = []string{"127.0.0.1:1"}
		if _, err := Options(conf); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := compression("lzma"); err == nil {
		t.Error("compression lzma was taken")
	}
}
