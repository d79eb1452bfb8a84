package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/agrenting/agrenting-go"
)

// newerRecord is in the error for a record that a newer program wrote.
const newerRecord = "use the program that wrote it, or a newer one"

// storeHint returns what to do about a store that cannot be used, or "".
func (e *examination) storeHint(err error) string {
	store := e.app.Store
	info, serr := os.Lstat(store)
	switch {
	case store == "" || serr != nil:
		return ""
	case strings.Contains(strings.ToLower(err.Error()), newerRecord):
		return "use the version of agrenting that wrote the store, or a newer one; the key in the store is valid, so keep the store"
	case info.Mode()&fs.ModeSymlink != 0:
		if target, err := filepath.EvalSymlinks(store); err == nil {
			return "use the folder itself: --store " + shellQuoted(target)
		}
		return "the target of the link " + store + " does not exist; set --store to an existing folder"
	case !ours(info):
		return "a store serves one user: run this as the owner of " + store + ", or run: sudo chown -R \"$(id -un)\" " + shellQuoted(store)
	case errors.Is(err, fs.ErrPermission) && info.IsDir() && info.Mode().Perm()&0o700 != 0o700:
		return "run: chmod 700 " + shellQuoted(store)
	}
	return recordHint(store, err)
}

// recordHint returns what to do about the files of a store that cannot be used, or "".
func recordHint(store string, err error) string {
	paths, gerr := filepath.Glob(filepath.Join(globQuoted(store), "*.record"))
	if gerr != nil {
		return ""
	}
	for _, path := range paths {
		info, lerr := os.Lstat(path)
		switch {
		case lerr != nil:
		case info.Mode()&fs.ModeSymlink != 0:
			target, terr := filepath.EvalSymlinks(path)
			switch {
			case terr != nil:
				return "the target of the link " + path + " does not exist; restore that file"
			case filepath.Base(target) == filepath.Base(path):
				return "use the folder of the file itself: --store " + shellQuoted(filepath.Dir(target))
			default:
				return "replace the link with the file: mv " + shellQuoted(target) + " " + shellQuoted(path)
			}
		case !ours(info):
			return "a store serves one user: run this as the owner of " + path + ", or run: sudo chown -R \"$(id -un)\" " + shellQuoted(store)
		case errors.Is(err, fs.ErrPermission) && info.Mode().Perm()&0o600 != 0o600:
			return "run: chmod 600 " + shellQuoted(path)
		}
	}
	return ""
}

// globQuoted quotes a path for use in a pattern of [filepath.Glob].
func globQuoted(path string) string {
	if filepath.Separator == '\\' {
		return path // Windows has no quoting, and its paths rarely need it
	}
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

// readHint returns what to do about a key file that must not be read.
func readHint(path string) string {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "a folder above " + path + " is not accessible: run this as a user who has access, or name another file with --key-file or " + varKeyFile
	case ours(info):
		return "run: chmod 600 " + shellQuoted(path)
	default:
		return "run this as the owner of " + path + ", or run: sudo chown \"$(id -un)\" " + shellQuoted(path)
	}
}

// proxyFailure turns an error of an HTTP proxy into one that names the proxy. It returns other
// errors unchanged.
func (e *examination) proxyFailure(err error) error {
	variable := e.viaProxy()
	op, ok := errors.AsType[*net.OpError](err)
	// Go's transport returns only the status text if a proxy returns a status other than 200.
	refused := strings.HasPrefix(e.report.URL, "https:") && e.app.classify(err).code == codeFailure
	connect := ok && op.Op == "proxyconnect"
	if variable == "" || e.app.ctx.Err() != nil || (!connect && !refused) {
		return err
	}
	c := &cliError{code: codeNetwork, kind: "network", err: err}
	said := textOf(err)
	if connect {
		said = textOf(op.Err)
	}
	switch {
	case connect:
		c.msg = fmt.Sprintf("the proxy of %s cannot be reached: %s", variable, said)
		c.hint = "correct or unset " + variable
	case strings.Contains(said, http.StatusText(http.StatusProxyAuthRequired)):
		c.msg = fmt.Sprintf("the proxy of %s requires a login: %s", variable, said)
		c.hint = "put the login into " + variable + ", as in http://USER:PASSWORD@HOST:PORT"
	default:
		c.msg = fmt.Sprintf("the proxy of %s refuses the connection: %s", variable, said)
		c.hint = "ask its operator to allow " + hostOf(e.report.URL) + ", or correct or unset " + variable
	}
	c.hint += "; if the platform can be reached without it, add " + hostOf(e.report.URL) + " to NO_PROXY"
	return c
}

// hostOf returns the host of a URL without the port, or "".
func hostOf(base string) string {
	u, err := url.Parse(base)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// typedWrong returns what to do about a user token that was given as an API key, or "".
func (e *examination) typedWrong(cred agrenting.Credential) string {
	if cred.Kind() != agrenting.KindAPIKey || !strings.HasPrefix(cred.Reveal(), "ap_") {
		return ""
	}
	switch {
	case e.app.Type != "":
		return "leave out --type, or use --type user_token"
	case e.app.env(varType) != "":
		return "unset " + varType + ", or set it to user_token"
	default:
		return "" // it comes from a store
	}
}

// siblingOf returns the base URL with www. added to its host, or with www. removed.
func siblingOf(base string) string {
	scheme, rest, ok := strings.Cut(base, "://")
	if !ok {
		return ""
	}
	rest, _, _ = strings.Cut(rest, "/")
	if bare, found := strings.CutPrefix(rest, "www."); found {
		return scheme + "://" + bare
	}
	return scheme + "://www." + rest
}

// linkedSibling returns the sibling of a base URL if a link in a text leads there, such as
// https://www.agrenting.com for https://agrenting.com; otherwise it returns "".
func linkedSibling(base, text string) string {
	sibling := siblingOf(base)
	for sibling != "" {
		_, rest, found := strings.Cut(text, sibling)
		if !found {
			return ""
		}
		if rest == "" || strings.ContainsRune(`/?#"\ `, rune(rest[0])) {
			return sibling
		}
		text = rest
	}
	return ""
}

// links warns if the platform's links lead to its other host, because no credential is sent there.
func (e *examination) links() {
	if sibling := e.app.sibling; sibling != "" {
		e.note("links", checkWarn, "links of the platform lead to "+sibling+", and credentials are sent only to "+e.report.URL,
			"set "+varURL+" or --url to "+sibling)
	}
}
