package wire

import (
	"errors"
	"fmt"
	"net"
	"strings"
)

// memoryNet begins the addresses of servers in memory. memoryPort is their port.
const memoryNet, memoryPort = "127.77.", ":4000"

// explainDial explains a failed connection to a server of package agrentingtest that
// is only in memory: it has an address, but does not listen there.
func explainDial(err error) error {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "dial" || op.Addr == nil {
		return err
	}
	if addr := op.Addr.String(); !strings.HasPrefix(addr, memoryNet) || !strings.HasSuffix(addr, memoryPort) {
		return err
	}
	return fmt.Errorf("%w. This is the address of an agrentingtest server that is in memory only. "+
		"Pass WithTransport(server.Transport()) to the client, or start the server without InMemory", err)
}
