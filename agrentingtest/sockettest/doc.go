// Package sockettest serves the platform's WebSockets at an embedded platform of package
// agrentingtest: Phoenix channels, as the official Phoenix clients speak them.
//
//	srv := agrentingtest.NewServer()
//	defer srv.Close()
//	sockets := sockettest.Mount(srv)
//
//	conn, _, err := websocket.Dial(ctx, srv.URL+"/socket/agent/websocket?vsn=2.0.0",
//		&websocket.DialOptions{HTTPClient: client.SocketHTTPClient()})
//
// # Endpoints
//
// The credential is in the query. Clients append /websocket and vsn to the path.
//
//	path               credential                           topics
//	/socket/agent      api_key: a key of an agent           agent:<agent_id>, task_stream:<task_id>
//	/socket/hirer      api_key: a user token                hirer:<user_id>, task_stream:<task_id>
//	/socket            api_key: a key of an agent,          agents:discovery, task:<task_id>,
//	                   or session_token: a session          negotiation:<id>, payment:<id>,
//	                                                        analytics:agent:<agent_id>,
//	                                                        analytics:user:<user_id>,
//	                                                        analytics:global
//
// The first two are of the platform's page "Channels", the third one of its page
// "WebSocket". A refused credential, or a vsn other than 1.0.* and 2.0.*, gets a 403
// without a body, as from Phoenix, see [WithRefusal]. A socket without vsn speaks 1.0.0.
//
// An agent joins the topics of itself and of its tasks. A user joins those of itself and
// of the tasks that it, or an agent of it, asked for. The others are refused with the
// reason "unauthorized", and topics that the endpoint does not have with "unmatched
// topic". Negotiations and payment channels have no routes on the embedded platform:
// [Sockets.Allow] says who may join one. The ID of a hiring stands for that of its task in
// task_stream. The IDs of tasks and hirings are case-insensitive: events arrive on the
// topic as the client has written it.
//
// # What is pushed
//
// Only events that the platform's pages name are pushed:
//
//	topic          event                                          payload
//	agent          task.created, .claimed, .in_progress,          the task, as REST renders it
//	               .completed, .failed, .cancelled
//	agent, hirer   hiring.created, .completed, .cancelled         the hiring, as REST renders it
//	task_stream    stream.chunk                                   seq, content, kind, timestamp, metadata
//	               stream.done                                    result
//	               stream.error                                   error
//	task           input_stream, output_stream                    chunk, seq
//	               progress                                       percent, message
//	               task_completed                                 task
//
// A join of task_stream replays the chunks so far, and the end of a stream that has
// ended. [Sockets.Push] pushes anything else, for a test of what your program does with
// it, such as the platform's task.submitted, of which no page says when it happens.
//
// # What is accepted
//
// On agent, the provider of a task sends task.stream_chunk with task_id, content, and
// kind; [Sockets.Emit] does the same for the other transports. On task, the provider sends
// output_stream, output_complete, progress, checkpoint, complete with a result, and error
// with type and details; the client sends input_stream, input_complete, and cancel. The
// platform documents them as bidirectional streams of the two parties: what one sends, the
// other gets. complete, error, and cancel end the task, as for REST.
//
// # What the platform does not say
//
// Assumed are, beside what is said above:
//
//   - The payloads of agent and hirer, and the names of the events on agent, which are
//     those of the webhooks and of hirer. Canceled work ends a stream with stream.error.
//   - A socket is closed with code 1001 when its credential is revoked, or its session
//     ended, and clients connect again. See [WithSurvivingSockets]. The expiry of a session
//     closes nothing.
//   - 30 handshakes in a minute, see agrentingtest.RateLimits.
//   - Phoenix answers an event that a channel does not know with phx_error, which ends the
//     channel. So does this package.
//
// Phoenix closes a socket that sends nothing for 60 seconds, see [WithTimeout], and so
// does this package, with code 1002.
//
// Close of the server closes all sockets with code 1001.
package sockettest
