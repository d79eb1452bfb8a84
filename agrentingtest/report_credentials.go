package agrentingtest

import (
	"slices"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// refused describes the credentials of a request that is refused with 401 or 403.
func (x *exchange) refused(status int, route string) (rows []RefusedCredential) {
	row := RefusedCredential{Status: status, Route: route, Reason: x.refusal, Fault: kindOf(x.fault)}
	add := func(header, value string) {
		row.Header, row.Fingerprint = header, secret.Fingerprint(value)
		row.Kind, row.ID, row.AgentID, row.State = x.s.describeCredential(value)
		rows = append(rows, row)
	}
	for _, name := range credentialNames {
		for _, value := range x.r.Header[name] {
			if name == "Authorization" {
				if _, after, ok := strings.Cut(value, " "); ok {
					value = strings.TrimSpace(after)
				}
			}
			add(name, value)
		}
	}
	for _, value := range x.inQuery {
		if value = strings.TrimSpace(value); value != "" {
			add("query", value)
		}
	}
	if rows == nil {
		rows = append(rows, row)
	}
	return rows
}

// credentialNames are the headers for credentials.
var credentialNames = [...]string{"Api-Key", "Authorization", "X-Api-Key"}

// misplaced finds the server's own credentials in wrong places.
func (x *exchange) misplaced(route string) (rows []MisplacedCredential) {
	look := func(place, text string) {
		if len(text) < minSecret {
			return
		}
		for word := range strings.FieldsFuncSeq(text, notInCredential) {
			if len(word) < minSecret || len(word) > maxSecret {
				continue
			}
			kind, id, agentID, _ := x.s.describeCredential(word)
			row := MisplacedCredential{
				Fingerprint: secret.Fingerprint(word), Kind: kind, ID: id, AgentID: agentID, Place: place, Route: route,
			}
			if id != "" && !slices.Contains(rows, row) { // a request counts once for each place
				rows = append(rows, row)
			}
		}
	}
	look("path", x.r.URL.Path)
	if !strings.HasPrefix(x.r.URL.Path, socketPrefix) {
		for _, values := range x.entry.Query {
			look("query", strings.Join(values, " "))
		}
	}
	for name, values := range x.entry.Header {
		if !slices.Contains(credentialNames[:], name) {
			look("header "+name, strings.Join(values, " "))
		}
	}
	var body string
	x.s.log.update(func() { body = string(x.entry.Body) })
	look("body", body)
	return rows
}

// socketPrefix is the path prefix of the sockets, which accept the credential in the
// query.
const socketPrefix = "/socket/"

// The lengths of the shortest and the longest secret of this server: an API key of 40
// hexadecimal digits, and a sandbox user token.
const (
	minSecret = 40
	maxSecret = 51
)

func notInCredential(r rune) bool {
	return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && r != '_' && r != '-'
}

// describeCredential returns the kind, ID, agent, and state of a secret. For an
// unknown secret, kind is "unknown" and the other values are empty.
func (s *Server) describeCredential(value string) (kind, id, agentID, state string) {
	d, now := sum(value), s.now()
	s.dir.mu.RLock()
	defer s.dir.mu.RUnlock()
	if k := s.dir.keyBySum[d]; k != nil {
		return string(KindAPIKey), k.id, k.agent.id, stateOf(time.Time{}, k.revoked, now, "revoked")
	}
	if e := s.dir.sessions[d]; e != nil {
		return string(KindSession), e.id, e.key.agent.id, stateOf(e.expires, e.ended, now, "ended")
	}
	if t := s.dir.tokenBySum[d]; t != nil {
		return string(KindUserToken), t.id, "", stateOf(t.expires, t.revoked, now, "revoked")
	}
	return "unknown", "", "", ""
}

func stateOf(expires, ended, now time.Time, endedName string) string {
	switch {
	case !ended.IsZero():
		return endedName
	case !expires.IsZero() && !now.Before(expires):
		return "expired"
	default:
		return "live"
	}
}
