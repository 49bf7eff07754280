package settings

import (
	"slices"
)

// Variables that texts name.
const (
	SubmissionVariable = "EMAIL_SUBMISSION_ADDR" // Intake.Submission
	APIVariable        = "EMAIL_API_ADDR"        // Intake.API
	KeysFileVariable   = "EMAIL_API_KEYS_FILE"   // Intake.KeysFile

	submissionCert     = "EMAIL_SUBMISSION_CERTFILE"
	submissionKey      = "EMAIL_SUBMISSION_KEYFILE"
	submissionNetworks = "EMAIL_SUBMISSION_NETWORKS"
	submissionMemory   = "EMAIL_SUBMISSION_MEMORY"
	maxMessageSize     = "EMAIL_MAX_MESSAGE_SIZE"
	apiCert            = "EMAIL_API_CERTFILE"
	apiKey             = "EMAIL_API_KEYFILE" //nolint:gosec // the name of a variable
	apiPlain           = "EMAIL_API_ALLOW_PLAIN"
)

// On reports whether mail is taken from other programs.
func (i Intake) On() bool { return len(i.Submission) > 0 || i.API != "" }

// check checks what is wrong in itself, whichever program has these settings. size is how big a message may be.
func (i Intake) check(size Size, p *Problems) {
	if len(i.Submission) > 0 && i.Memory < size && !p.has(submissionMemory, maxMessageSize) {
		p.add(submissionMemory, "%s is less than one message may have, which is %s (%s)", i.Memory, size, maxMessageSize)
	}
	if i.API != "" && !p.has(APIVariable) {
		if err := checkAddr(i.API); err != nil {
			p.add(APIVariable, "%q is not a host and a port, such as 127.0.0.1:8026", i.API)
		}
	}
	for _, pair := range []struct{ cert, key, certFile, keyFile string }{
		{submissionCert, submissionKey, i.CertFile, i.KeyFile}, {apiCert, apiKey, i.APICertFile, i.APIKeyFile},
	} {
		switch {
		case pair.certFile != "" && pair.keyFile == "":
			p.add(pair.key, "the certificate in %s needs its key here", pair.cert)
		case pair.certFile == "" && pair.keyFile != "":
			p.add(pair.cert, "the key in %s needs its certificate here", pair.key)
		}
	}
	implicit := func(l Listener) bool { return l.TLS }
	if slices.ContainsFunc(i.Submission, implicit) && i.CertFile == "" && !p.has(submissionCert, SubmissionVariable) {
		p.add(submissionCert, "%s in %s needs a certificate here", schemeTLS, SubmissionVariable)
	}
}

// checkAccess reports addresses that other machines can reach and at which anybody could hand in mail, or nobody, or keys would
// cross the network in clear text, and files that cannot be read.
func (i Intake) checkAccess(p *Problems) {
	if len(i.Submission) > 0 && !p.has(SubmissionVariable, submissionCert, submissionNetworks, KeysFileVariable) {
		i.checkSubmission(p)
	}
	if i.API != "" && !p.has(APIVariable, apiCert, KeysFileVariable) {
		switch {
		case i.KeysFile == "":
			p.add(KeysFileVariable, "%s takes mail from who has a key: name the file of the keys here (worker key new makes one)", APIVariable)
		case isRemoteAddr(i.API) && i.APICertFile == "" && !i.APIPlain:
			p.add(APIVariable, "other machines can reach %s, and keys would go there in clear text: set %s and %s, or an address that only this machine can reach, such as 127.0.0.1:8026; or, behind a proxy that speaks TLS, %s",
				i.API, apiCert, apiKey, apiPlain)
		}
	}
	for _, file := range []struct {
		name, path string
		used       bool
	}{
		{submissionCert, i.CertFile, len(i.Submission) > 0}, {submissionKey, i.KeyFile, len(i.Submission) > 0},
		{apiCert, i.APICertFile, i.API != ""}, {apiKey, i.APIKeyFile, i.API != ""}, {KeysFileVariable, i.KeysFile, i.On()},
	} {
		if !file.used || file.path == "" || p.has(file.name) {
			continue
		}
		if err := canRead(file.path); err != nil {
			p.add(file.name, "cannot be read: %v", err)
		}
	}
}

func (i Intake) checkSubmission(p *Problems) {
	for _, l := range i.Submission {
		switch {
		case l.Network == "unix" || len(i.Networks) > 0:
		case i.KeysFile == "":
			p.add(SubmissionVariable, "nobody could hand in mail at %s: set %s for programs that log in with a key, or %s for those that need not", l, KeysFileVariable, submissionNetworks)
		case l.IsRemote() && i.CertFile == "":
			p.add(SubmissionVariable, "other machines can reach %s, and a key is never taken in clear text: set %s and %s, or %s for programs that need no key, or an address that only this machine can reach, such as 127.0.0.1:2525",
				l, submissionCert, submissionKey, submissionNetworks)
		default:
			continue
		}
		if p.has(SubmissionVariable) {
			return
		}
	}
}

// warn says which settings have no effect.
func (i Intake) warn(sets func(variable string) bool, w *Problems) {
	without := func(needed string, variables ...string) {
		for _, v := range variables {
			if sets(v) {
				w.add(v, "has no effect without %s", needed)
			}
		}
	}
	if len(i.Submission) == 0 {
		without(SubmissionVariable, submissionCert, submissionKey, submissionNetworks, "EMAIL_SUBMISSION_CONNECTIONS",
			"EMAIL_SUBMISSION_CONNECTIONS_PER_ADDRESS", "EMAIL_SUBMISSION_RECIPIENTS", "EMAIL_SUBMISSION_TIMEOUT", submissionMemory)
	}
	if i.API == "" {
		without(APIVariable, apiCert, apiKey, apiPlain)
	}
}
