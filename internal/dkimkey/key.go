// Package dkimkey reads the private keys that DKIM signs with, and knows what the DNS has to say of them: which keys are good
// enough, the record of each, and whether a record is that of a key (RFC 6376, 3.6; RFC 8301; RFC 8463).
package dkimkey

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
)

// The sizes of RSA keys. Verifiers refuse less than 1,024 bits and need not take more than 4,096; signers are to use 2,048 at least
// (RFC 8301, 3.2).
const (
	MinBits = 2048
	maxBits = 4096
)

// maxFile is more than any key takes.
const maxFile = 1 << 20

// Read reads the key in a PEM file. The error begins with the name of the file.
func Read(path string) (crypto.Signer, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxFile {
		return nil, fmt.Errorf("%s holds %d bytes, which is no key", path, info.Size())
	}
	text, err := os.ReadFile(path) //nolint:gosec // the administrator names the file
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	key, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s %w", path, err)
	}
	return key, nil
}

// Parse reads a private key in PEM: PKCS #8 (PRIVATE KEY), or PKCS #1 for RSA (RSA PRIVATE KEY). The error is what is wrong with the
// text, for a sentence that begins with its name.
func Parse(text []byte) (crypto.Signer, error) {
	found := "" // a block that is no private key
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return nil, errors.New("holds a key with a password: write it without one (openssl pkey -in FILE -out NEW), and let nobody else read the file")
		}
		switch block.Type {
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("holds a key that cannot be read: %w", err)
			}
			return check(key)
		case "RSA PRIVATE KEY":
			key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("holds an RSA key that cannot be read: %w", err)
			}
			return check(key)
		case "EC PRIVATE KEY", "DSA PRIVATE KEY", "OPENSSH PRIVATE KEY":
			return nil, fmt.Errorf("holds a key of the kind %q: DKIM knows RSA and Ed25519, in PKCS #8 or PKCS #1", block.Type)
		default:
			found = block.Type
		}
	}
	if found != "" {
		return nil, fmt.Errorf("holds no private key, only %q", found)
	}
	return nil, errors.New("holds no private key in PEM, which begins with -----BEGIN PRIVATE KEY----- (or RSA PRIVATE KEY)")
}

func check(key any) (crypto.Signer, error) {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("holds a key of the kind %T: DKIM knows RSA and Ed25519", key)
	}
	return signer, Check(signer)
}

// Check says why a key cannot sign, in the words of Parse.
func Check(key crypto.Signer) error {
	switch public := key.Public().(type) {
	case *rsa.PublicKey:
		switch bits := public.N.BitLen(); {
		case bits < MinBits:
			return fmt.Errorf("is an RSA key of %d bits: %d are the least, since receivers ignore or refuse weaker signatures (RFC 8301)", bits, MinBits)
		case bits > maxBits:
			return fmt.Errorf("is an RSA key of %d bits: receivers need not take more than %d (RFC 8301)", bits, maxBits)
		}
		return nil
	case ed25519.PublicKey:
		return nil
	default:
		return fmt.Errorf("is a key of the kind %T: DKIM knows RSA and Ed25519", public)
	}
}
