// Package sockettest serves the platform's WebSockets on an embedded platform of package
// agrentingtest: Phoenix channels that work with the official Phoenix clients.
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
// The first two are from the platform's page "Channels", and the third one is from its
// page "WebSocket". A refused credential, or a vsn other than 1.0.* and 2.0.*, gets a 403
// without a body, as in Phoenix; see [WithRefusal]. A socket without vsn uses 1.0.0.
//
// An agent can join its own topics and those of its tasks. A user can join its own topics
// and those of the tasks that it, or an agent of it, has requested. Other topics are
// refused with the reason "unauthorized", and topics that do not exist on the endpoint
// with "unmatched topic". The embedded platform has no routes for negotiations and
// payment channels: [Sockets.Allow] sets who may join one. In task_stream, the ID of a
// hiring is used like the ID of a task. The IDs of tasks and hirings are
// case-insensitive: events arrive on the topic as the client wrote it.
//
// # Outbound events
//
// Only events that are named in the platform's pages are pushed:
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
// A join of task_stream replays the earlier chunks, and the end of the stream if it has
// ended. [Sockets.Push] pushes any other event, such as the platform's task.submitted,
// for which no page documents the cause.
//
// # Inbound events
//
// On agent, the provider of a task sends task.stream_chunk with task_id, content, and
// kind. [Sockets.Emit] does the same for the other transports. On task, the provider
// sends output_stream, output_complete, progress, checkpoint, complete with a result, and
// error with type and details. The client sends input_stream, input_complete, and cancel.
// The platform documents these events as bidirectional streams, so each event is passed
// on to the other party. complete, error, and cancel end the task, as with REST.
//
// # Undocumented behavior
//
// These are assumptions too:
//
//   - The payloads of agent and hirer, and the names of the events on agent, which are
//     those of the webhooks and of hirer. Canceled work ends a stream with stream.error.
//   - A socket is closed with code 1001 when its credential is revoked or its session is
//     ended, and clients connect again. See [WithSurvivingSockets]. The expiry of a session
//     does not close a socket.
//   - An agent or user may open 30 sockets in a minute, see agrentingtest.RateLimits.
//   - An event that a channel does not support gets a phx_error, which ends the channel,
//     as in Phoenix.
//
// Like Phoenix, this package closes a socket that has not sent anything for 60 seconds,
// with code 1002; see [WithTimeout].
//
// Closing the server closes all sockets with code 1001.
package sockettest
