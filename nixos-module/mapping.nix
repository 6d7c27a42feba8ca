# From options to secrets.json: pure, for NixOS and home-manager.
# Without `outputDir`, relative paths stay relative: opnix has its own place for them.
{ lib, cfg, outputDir, linkRoot ? null, services ? { } }:
let
  inherit (lib) concatLists filterAttrs hasPrefix mapAttrs mapAttrsToList optional optionalAttrs;
  isSaid = _: value: value != null && value != [ ] && value != { } && value != false;

  keeping = entry: {
    inherit (entry) cache;
    fresh_for = entry.freshFor;
    stale_for = entry.staleFor;
    always_fetch = entry.alwaysFetch;
  };

  absolute = path: if outputDir == null || hasPrefix "/" path then path else "${lib.removeSuffix "/" outputDir}/${path}";

  # `{word}` stands for a value, as in OpNix, and `{name}` for its name if nothing else is said.
  fill = name: entry: text:
    let words = { inherit name; } // cfg.defaults // (entry.variables or { }); in
    builtins.replaceStrings (map (word: "{${word}}") (builtins.attrNames words)) (builtins.attrValues words) text;

  # As OpNix: its own path, else the template's, else its name. A secret for units only is no file.
  pathOf = name: entry:
    if entry.path != null then absolute (fill name entry entry.path)
    else if entry.units != [ ] then null
    else if cfg.pathTemplate != null && entry ? reference then absolute (fill name entry cfg.pathTemplate)
    else absolute name;

  # A path of Nix is copied to the store.
  text = entry: {
    inherit (entry) template;
    template_file = if builtins.isPath entry.templateFile then "${entry.templateFile}" else entry.templateFile;
  };

  file = name: entry:
    let path = pathOf name entry; in
    optionalAttrs (path != null) {
      inherit path;
      inherit (entry) owner group mode symlinks optional;
      services =
        if builtins.isList entry.services then entry.services
        else
          mapAttrs
            (_: options:
              if options.onChange != null then { on_change = options.onChange; inherit (options) after; }
              else filterAttrs (_: value: value != null) (removeAttrs options [ "onChange" ]))
            entry.services;
    };

  declared = name: entry: { inherit name; inherit (entry) units; } // keeping entry // file name entry;

  unitOf = name: if lib.hasSuffix "@" name then "${name}*.service" else "${name}.service";

  ofUnit = service: unit: mapAttrsToList
    (id: credential: {
      name = "${id}@${service}";
      inherit (credential) reference kind;
      units = [
        ({ unit = unitOf service; credential = id; on_change = credential.onChange; }
          // optionalAttrs (credential.deadline != null) { inherit (credential) deadline; })
      ];
    } // text credential // keeping credential)
    unit.onepassword.credentials;

  environmentOf = service: unit: optional (unit.onepassword.environment != { } || unit.onepassword.environmentTemplate != null) {
    name = "environment@${service}";
    path = environmentFile service;
    mode = "0400";
    template = lib.concatStrings
      (mapAttrsToList (variable: reference: "${variable}={{ ${reference} | env }}\n") unit.onepassword.environment)
      + (if unit.onepassword.environmentTemplate == null then "" else unit.onepassword.environmentTemplate);
    services = optional unit.onepassword.restartOnChange service;
  };

  # Where the mirror shows its memory: `outputDir`, unless that is on a disk.
  memory = if outputDir != null && hasPrefix "/run/" outputDir then lib.removeSuffix "/" outputDir else "/run/secrets";
  environmentFile = service: "${memory}/${service}.env";

  credentials = concatLists (mapAttrsToList ofUnit services);
  hasTemplate = entry: entry.template != null || entry.template_file != null;
  tidy = entry: filterAttrs (key: value: isSaid key value && !(key == "kind" && value == "field")) entry;

  secrets = map tidy (
    mapAttrsToList (name: entry: { inherit (entry) reference kind; } // declared name entry) cfg.secrets
    ++ builtins.filter (entry: !hasTemplate entry) credentials
  );
  templates = map tidy (
    mapAttrsToList (name: entry: text entry // declared name entry) cfg.templates
    ++ builtins.filter hasTemplate credentials
    ++ concatLists (mapAttrsToList environmentOf services)
  );
  provider =
    if cfg.provider.connect != null then { kind = "connect"; } // tidy cfg.provider.connect
    else { kind = "service_account"; } // tidy cfg.provider.serviceAccount;
in
{
  inherit environmentFile memory pathOf secrets templates;
  files = builtins.filter (entry: entry ? path) (secrets ++ templates);

  content = tidy {
    inherit provider secrets templates;
    inherit (cfg) cache deadline grace refresh systemdIntegration;
    short_deadline = cfg.shortDeadline;
    fresh_for = cfg.freshFor;
    stale_for = cfg.staleFor;
    link_root = linkRoot;
    mirror_root = if memory == "/run/secrets" then null else memory;
    budget = tidy cfg.budget;
  } // cfg.settings;
}
